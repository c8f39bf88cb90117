//! A span as other processes name it: the headers `traceparent` and `tracestate` of W3C.

use std::fmt;
use std::str::FromStr;

/// The most bytes of a `tracestate` that is passed on.
const STATE: usize = 512;

/// A span as other processes name it, in the form of
/// [W3C](https://www.w3.org/TR/trace-context/): the headers `traceparent` and `tracestate`.
///
/// ```
/// use ray_zerocopy::observe::TraceContext;
///
/// let context: TraceContext = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse()?;
/// assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
/// assert!("00-0af7-b7ad-01".parse::<TraceContext>().is_err());
/// # Ok::<_, ray_zerocopy::observe::TraceContextError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: String,
}

/// Why a text is not a `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the traceparent `{}` is not valid: {reason}, expected `00-TRACE-SPAN-FLAGS` with 32, 16 and 2 hexadecimal digits", found.escape_debug())]
#[non_exhaustive]
pub struct TraceContextError {
    /// The first characters of the text.
    pub found: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl TraceContext {
    /// Adds a `tracestate`, which is passed on as it is. One that is not printable ASCII, or has more than 512
    /// bytes, is left out.
    #[must_use]
    pub fn with_state(mut self, tracestate: &str) -> Self {
        let fits = tracestate.len() <= STATE && tracestate.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        self.tracestate = if fits { tracestate.trim().to_owned() } else { String::new() };
        self
    }

    /// The header `traceparent`.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// The header `tracestate`, or an empty string.
    pub fn tracestate(&self) -> &str {
        &self.tracestate
    }

    /// The id of the trace: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.part(3..35)
    }

    /// The id of the span: 16 hexadecimal digits.
    pub fn span_id(&self) -> &str {
        self.part(36..52)
    }

    /// Returns `true` if the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(self.part(53..55), 16).is_ok_and(|flags| flags & 1 == 1)
    }

    fn part(&self, range: std::ops::Range<usize>) -> &str {
        self.traceparent.get(range).unwrap_or_default()
    }
}

impl FromStr for TraceContext {
    type Err = TraceContextError;

    fn from_str(text: &str) -> Result<Self, TraceContextError> {
        let text = text.trim();
        match flaw(text) {
            None => Ok(Self { traceparent: text.get(..55).unwrap_or(text).to_owned(), tracestate: String::new() }),
            Some(reason) => Err(TraceContextError { found: text.chars().take(80).collect(), reason }),
        }
    }
}

/// What is wrong with a `traceparent`.
fn flaw(text: &str) -> Option<&'static str> {
    let mut parts = text.split('-');
    let mut hex = |digits: usize| {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts.next().filter(|part| part.len() == digits && part.bytes().all(is_digit))
    };
    let Some(version) = hex(2).filter(|version| *version != "ff") else { return Some("it has no known version") };
    match hex(32) {
        None => return Some("it has no id of a trace"),
        Some(id) if id.bytes().all(|byte| byte == b'0') => return Some("the id of the trace is zero"),
        Some(_) => {}
    }
    match hex(16) {
        None => return Some("it has no id of a span"),
        Some(id) if id.bytes().all(|byte| byte == b'0') => return Some("the id of the span is zero"),
        Some(_) => {}
    }
    if hex(2).is_none() {
        return Some("it has no flags");
    }
    // A later version may have more parts.
    (version == "00" && parts.next().is_some()).then_some("it has more than four parts")
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent)
    }
}

#[cfg(test)]
mod tests {
    use super::TraceContext;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn valid_contexts_are_read() {
        let context: TraceContext = VALID.parse().unwrap();
        assert_eq!(context.traceparent(), VALID);
        assert_eq!((context.span_id(), context.is_sampled()), ("b7ad6b7169203331", true));
        assert!(!VALID.replace("-01", "-00").parse::<TraceContext>().unwrap().is_sampled());
        let later: TraceContext = format!("cc{}-what-follows", &VALID[2..]).parse().unwrap();
        assert_eq!(later.traceparent().len(), 55);
        assert_eq!(context.clone().with_state("a=1, b=2").tracestate(), "a=1, b=2");
        assert_eq!(context.clone().with_state("a=\u{e9}").tracestate(), "");
        assert_eq!(context.with_state(&"a".repeat(600)).tracestate(), "");
    }

    #[test]
    fn invalid_contexts_are_errors() {
        let cases = [
            ("", "it has no known version"),
            ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "it has no known version"),
            ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", "it has no id of a trace"),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", "the id of the trace is zero"),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b71692033-01", "it has no id of a span"),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", "the id of the span is zero"),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", "it has no flags"),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", "it has more than four parts"),
            ("\u{e9}\u{e9}", "it has no known version"),
        ];
        for (text, reason) in cases {
            assert_eq!(text.parse::<TraceContext>().unwrap_err().reason, reason, "{text}");
        }
        assert!("x".repeat(5000).parse::<TraceContext>().unwrap_err().to_string().len() < 300);
    }
}
