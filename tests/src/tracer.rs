//! A backend of traces: spans of all processes of a test, as lines of one file.
//!
//! Only what happens inside of a span `test` is written, so that other tests of a program are not in the way.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ray_zerocopy::observe::{Propagator, TraceContext, set_propagator, set_worker_set_up};
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Span, Subscriber, info_span};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::{Layer, filter};

/// A span that has ended, or something that was logged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recorded {
    /// Name of the span, or `event`.
    pub name: String,
    /// 32 digits.
    pub trace: String,
    /// 16 digits. That of the span in which an event was logged.
    pub span: String,
    pub parent: Option<String>,
    /// Spans that this one is linked to.
    pub links: Vec<String>,
    pub fields: BTreeMap<String, String>,
    /// The process that has recorded it.
    pub process: u32,
}

impl Recorded {
    /// A field, or an empty string.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// What is written for each span. Without it, the span is not part of a test.
type Data = Recorded;

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

struct Recorder(File);

fn random() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish() | 1)
}

impl Recorder {
    fn write(&self, recorded: &Recorded) {
        let mut line = serde_json::to_string(recorded).unwrap();
        line.push('\n');
        (&self.0).write_all(line.as_bytes()).unwrap();
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let parent = span
            .parent()
            .and_then(|parent| parent.extensions().get::<Data>().map(|data| (data.trace.clone(), data.span.clone())));
        let (trace, parent) = match parent {
            Some((trace, parent)) => (trace, Some(parent)),
            None if span.name() == "test" => (random() + &random(), None),
            // Another process may name its parent later.
            None if span.name() == "method" => (String::new(), None),
            None => return,
        };
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        let (name, links, process) = (span.name().to_owned(), Vec::new(), std::process::id());
        span.extensions_mut().insert(Data { name, trace, span: random(), parent, links, fields, process });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(data) = context.span(id).unwrap().extensions_mut().get_mut::<Data>() {
            values.record(&mut Fields(&mut data.fields));
        }
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        let linked = context.span(follows).and_then(|span| Some(span.extensions().get::<Data>()?.span.clone()));
        if let Some(data) = context.span(id).unwrap().extensions_mut().get_mut::<Data>() {
            data.links.extend(linked);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(span) = context.event_span(event) else { return };
        let extensions = span.extensions();
        let Some(data) = extensions.get::<Data>().filter(|data| !data.trace.is_empty()) else { return };
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        self.write(&Recorded { name: "event".to_owned(), fields, ..data.clone() });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let Some(data) = context.span(&id).unwrap().extensions().get::<Data>().filter(|data| !data.trace.is_empty())
        {
            self.write(data);
        }
    }
}

/// Changes or reads the data of a span.
fn of<R>(span: &Span, ask: impl FnOnce(&mut Data) -> R) -> Option<R> {
    let found = span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        let mut extensions = span.extensions_mut();
        extensions.get_mut::<Data>().map(ask)
    });
    found.flatten()
}

fn context(span: &Span) -> Option<TraceContext> {
    let (trace, span) = of(span, |data| (data.trace.clone(), data.span.clone()))?;
    format!("00-{trace}-{span}-01").parse().ok()
}

fn set_parent(span: &Span, parent: &TraceContext) {
    of(span, |data| (data.trace, data.parent) = (parent.trace_id().to_owned(), Some(parent.span_id().to_owned())));
}

/// Installs the backend in this process.
fn install(file: &Path) {
    let file = OpenOptions::new().create(true).append(true).open(file).unwrap();
    // Only the spans of this workspace.
    let ours = filter::Targets::new()
        .with_target("ray_zerocopy", tracing::Level::INFO)
        .with_target("ray_zerocopy_tests", tracing::Level::INFO);
    tracing::subscriber::set_global_default(Registry::default().with(Recorder(file).with_filter(ours))).unwrap();
    assert!(set_propagator(Propagator::new(context, set_parent)));
}

fn set_up(file: String) -> Box<dyn Any> {
    install(Path::new(&file));
    Box::new(())
}

/// The file to which all processes of this test program write.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let (_, path) = tempfile::Builder::new().prefix("ray-zerocopy-spans-").tempfile().unwrap().keep().unwrap();
    install(&path);
    set_worker_set_up(set_up, path.to_str().unwrap()).unwrap();
    path
});

/// Installs the backend, in this process and in all workers that start from now on.
pub fn prepare() {
    LazyLock::force(&FILE);
}

/// The trace of a test.
pub struct Trace {
    pub root: Span,
    id: String,
}

impl Trace {
    /// Begins a trace.
    pub fn begin() -> Self {
        prepare();
        let root = info_span!(target: "ray_zerocopy_tests", parent: None, "test");
        let id = of(&root, |data| data.trace.clone()).unwrap();
        Self { root, id }
    }

    /// What has been recorded of the trace.
    pub fn recorded(&self) -> Vec<Recorded> {
        let text = std::fs::read_to_string(&*FILE).unwrap();
        // The last line may be incomplete.
        let all = text.lines().filter_map(|line| serde_json::from_str::<Recorded>(line).ok());
        all.filter(|recorded| recorded.trace == self.id).collect()
    }
}

/// The spans of a name.
pub fn named<'a>(recorded: &'a [Recorded], name: &str) -> Vec<&'a Recorded> {
    recorded.iter().filter(|recorded| recorded.name == name).collect()
}

/// The spans of a name that are children of another one.
pub fn children<'a>(recorded: &'a [Recorded], parent: &Recorded, name: &str) -> Vec<&'a Recorded> {
    let is_child = |child: &&Recorded| child.parent.as_ref() == Some(&parent.span);
    named(recorded, name).into_iter().filter(is_child).collect()
}
