//! Errors as gRPC statuses, and deadlines of gRPC.

use std::time::Duration;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::error::{ErrorKind, ServeError};

impl From<ServeError> for Status {
    fn from(error: ServeError) -> Self {
        let code = match error.kind() {
            ErrorKind::Invalid => Code::InvalidArgument,
            ErrorKind::Unauthenticated => Code::Unauthenticated,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::TooLarge | ErrorKind::Busy => Code::ResourceExhausted,
            ErrorKind::Method => Code::FailedPrecondition,
            ErrorKind::Slow | ErrorKind::Cancelled => Code::Cancelled,
            ErrorKind::Failed => Code::Internal,
            ErrorKind::Unsupported => Code::Unimplemented,
            ErrorKind::Unavailable => Code::Unavailable,
            ErrorKind::Deadline => Code::DeadlineExceeded,
        };
        let mut status = Self::new(code, error.to_string());
        if let Some(after) = error.retry_after() {
            let millis = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
            // What clients of gRPC read for a retry.
            status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from(millis));
        }
        status
    }
}

/// The duration that a client allows, in the header `grpc-timeout`: up to 8 digits and a unit.
///
/// # Errors
/// If it has another form.
pub(super) fn timeout(metadata: &MetadataMap) -> Result<Option<Duration>, ServeError> {
    let Some(value) = metadata.get("grpc-timeout") else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let number = number.parse::<u64>().ok().filter(|_| number.len() <= 8)?;
        Some(match unit {
            "H" => Duration::from_secs(number * 3600),
            "M" => Duration::from_secs(number * 60),
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            _ => return None,
        })
    });
    let invalid = || ServeError::invalid(format!("the header grpc-timeout is {value:?}, expected digits and a unit"));
    parsed.map(Some).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::metadata::MetadataMap;

    use super::timeout;

    #[test]
    fn timeouts_have_a_unit() {
        let parse = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            timeout(&metadata)
        };
        assert_eq!(parse("150m").unwrap(), Some(Duration::from_millis(150)));
        assert_eq!(parse("2S").unwrap(), Some(Duration::from_secs(2)));
        assert_eq!(timeout(&MetadataMap::new()).unwrap(), None);
        for wrong in ["5", "m", "123456789m", "-1S", "1x"] {
            assert!(parse(wrong).unwrap_err().to_string().contains("digits and a unit"), "{wrong}");
        }
    }
}
