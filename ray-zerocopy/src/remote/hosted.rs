//! A loaded pipeline in a worker, which the engine calls a program.

use std::any::Any;
use std::time::Instant;

use burn::tensor::Device;

use super::wire::{Reader, WireError, Writer};
use crate::arena::arena::Arena;
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::served::MethodError;
use crate::engine::served::{ItemSink, LoadRequest, LoadedProgram, Prewarm, Served};
use crate::engine::sys::entry::{Change, ChangeBoth, FnToken};
use crate::error::load::LoadError;
use crate::os::last_call;
use crate::pipeline::device_weights;
use crate::pipeline::load::Loaded;
use crate::pipeline::load::load;
use crate::pipeline::rebuild::Root;
use crate::{device, panics};

/// The function that runs a remote method in a worker: reads the arguments and writes the result.
pub type Handler<P> = fn(&mut P, &mut Reader, &mut Writer) -> Result<(), WireError>;

/// What an error says of a process whose GPU has failed.
const LOST: &str = "The worker's process cannot use the GPU any more.";

struct HostedPipeline<P> {
    pipeline: P,
    arena: Arena,
    device: Device,
    prewarm: Option<Prewarm>,
}

/// Loads a pipeline of type `P` in a worker.
pub(crate) fn loader<P: Root>(request: LoadRequest) -> Result<LoadedProgram, LoadError> {
    let LoadRequest { arena, device, strict, prewarm } = request;
    let device = device::device(&device)?;
    let loaded: Loaded<P> = load(&arena, &device)?;
    let loaded = if strict { loaded.strict()? } else { loaded };
    let (copied, decoding) = (loaded.copied().to_vec(), loaded.decode_time());
    let shared = loaded.device_memory().cloned();
    let mut served = Box::new(HostedPipeline { pipeline: loaded.into_inner(), arena, device, prewarm });
    let begun = Instant::now();
    served.prewarm()?;
    Ok(LoadedProgram { served, copied, device: shared, decoding, prewarming: begun.elapsed() })
}

impl<P: Root> Served for HostedPipeline<P> {
    fn call(
        &mut self,
        handler: &FnToken,
        arguments: Incoming,
        items: Option<ItemSink>,
    ) -> Result<Outgoing, MethodError> {
        let wire = |what: &str, reason: String| MethodError::Wire { what: what.to_owned(), reason };
        let run: Handler<P> = handler.resolve().map_err(|error| wire("the call", error.to_string()))?;
        let mut reader = Reader::new(arguments, self.device.clone());
        let mut writer = Writer::with_items(items);
        let failure = match panics::caught(|| run(&mut self.pipeline, &mut reader, &mut writer)) {
            Ok(Ok(())) => return Ok(writer.finish()),
            Ok(Err(error)) => Ok(error),
            Err(panic) => Err(device_weights::explained(panic)),
        };
        // A kernel that fails ends what the process has on the GPU: every later call would fail, too.
        let is_lost = device_weights::is_lost(&self.device);
        let with_end = |reason: String| if is_lost { format!("{reason}\n{LOST}") } else { reason };
        if is_lost {
            last_call::request();
        }
        Err(match failure {
            Ok(WireError { graph: Some(error), .. }) => MethodError::Graph(error),
            Ok(error) => wire("an argument or the result", with_end(device_weights::explained(error.to_string()))),
            Err(panic) if is_lost => MethodError::Panicked(with_end(panic)),
            Err(panic) => MethodError::Panicked(self.renew(panic)),
        })
    }

    fn take_state(&mut self, old: &mut dyn Served, function: &FnToken) -> Result<Outgoing, MethodError> {
        self.take_state_of(old, function).map(|()| Outgoing::default())
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl<P: Root> HostedPipeline<P> {
    /// Moves the state of another generation to this one.
    fn take_state_of(&mut self, old: &mut dyn Served, function: &FnToken) -> Result<(), MethodError> {
        let failed = |reason: String| MethodError::Wire { what: "the call".to_owned(), reason };
        let ChangeBoth(run): ChangeBoth<P> = function.resolve().map_err(|error| failed(error.to_string()))?;
        let old = old.as_any().downcast_mut::<Self>();
        let old = old.ok_or_else(|| failed("the state is that of another pipeline".to_owned()))?;
        panics::caught(|| run(&mut self.pipeline, &mut old.pipeline))
            .map_err(|panic| MethodError::Panicked(self.renew(panic)))
    }

    /// Runs the prewarm function, if there is one.
    fn prewarm(&mut self) -> Result<(), LoadError> {
        let Some(Prewarm { function, place }) = &self.prewarm else { return Ok(()) };
        let failed = |reason: String| LoadError::Prewarm {
            pipeline: self.arena.pipeline().to_owned(),
            place: place.clone(),
            reason,
        };
        let Change(run): Change<P> = function.resolve().map_err(|error| failed(error.to_string()))?;
        panics::caught(|| run(&mut self.pipeline)).map_err(failed)
    }

    /// Loads the pipeline again from the arena, since a panic may have left it half-changed.
    /// Returns the text of the panic, with an error of the load.
    fn renew(&mut self, panic: String) -> String {
        // Dropping the half-changed pipeline may panic again, as may decoding its copied fields.
        let renewed = panics::caught(|| {
            self.pipeline = load::<P>(&self.arena, &self.device)?.into_inner();
            self.prewarm()
        });
        match renewed {
            Ok(Ok(())) => panic,
            Ok(Err(error)) => format!("{panic}; the pipeline could not be loaded again: {error}"),
            Err(again) => format!("{panic}; while the pipeline was loaded again: {again}"),
        }
    }
}
