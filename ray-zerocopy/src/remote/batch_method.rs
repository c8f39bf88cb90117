//! Methods whose calls can be put together: the trait that `#[remote(batch)]` implements for each of
//! them, and the generic code that uses it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;

use super::caller::{Caller, Method};
use super::canceller::{Canceller, Queue};
use super::method::{Arguments, RemoteMethod};
use super::pending::Pending;
use super::rows::{Divided, Rows, RowsResult};
use super::wire::{Reader, WireError, Writer};
use crate::engine::call::batch::batcher::{Batcher, Template};
use crate::engine::call::batch::batching::Batching;
use crate::engine::call::batch::member::{Member, Size};
use crate::engine::call::batch::message::{join, take_apart};
use crate::engine::call::batch::stats::BatchReport;
use crate::engine::call::waiter::{Observed, Waiter};
use crate::engine::message::Outgoing;
use crate::engine::program::Program;
use crate::engine::served::MethodError;
use crate::engine::sys::entry::FnToken;
use crate::error::call::{CallError, CallPart, StartError};
use crate::os::sync::Mutex;
use crate::os::sys::process_id::process_id;
use crate::panics;
use crate::tensor::host;

/// A method under `#[remote(batch)]`, whose first argument has rows.
pub trait BatchMethod<const INDEX: usize, A: BatchArguments, T: RowsResult>: RemoteMethod<INDEX, A, T> {
    /// Cost of a row.
    fn cost(row: &<A::First as Rows>::Row) -> usize;
}

/// Arguments of which the first has rows.
pub trait BatchArguments: Arguments {
    /// The type of the first argument.
    type First: Rows;

    /// The first argument.
    fn first(&self) -> &Self::First;

    /// Writes the other arguments, which are equal for all calls of a batch.
    ///
    /// # Errors
    /// If one of them cannot be written.
    fn put_rest(&self, wire: &Self::Wire, writer: &mut Writer) -> Result<(), WireError>;

    /// Reads the arguments of one call of several. Rows are in host memory, so that those of all calls are copied to the device
    /// at once.
    ///
    /// # Errors
    /// If the message does not have them.
    fn take_rows(wire: &Self::Wire, reader: &mut Reader) -> Result<Self, WireError>;

    /// Joins the first arguments of several calls on a device, and keeps the other ones of the first call.
    /// Returns `None` without a call.
    ///
    /// # Errors
    /// If they cannot be copied to the device.
    fn join(calls: Vec<Self>, device: &Device) -> Result<Option<Self>, WireError>;
}

impl<A: Rows, Rest: Arguments> BatchArguments for (A, Rest) {
    type First = A;

    fn first(&self) -> &A {
        &self.0
    }

    fn put_rest(&self, (_, rest): &Self::Wire, writer: &mut Writer) -> Result<(), WireError> {
        self.1.put(rest, writer)
    }

    fn take_rows((first, rest): &Self::Wire, reader: &mut Reader) -> Result<Self, WireError> {
        let first = if A::IS_TENSOR { reader.in_host_memory(first.take) } else { (first.take)(reader) };
        Ok((first?, Rest::take(rest, reader)?))
    }

    fn join(calls: Vec<Self>, device: &Device) -> Result<Option<Self>, WireError> {
        let mut rest = None;
        let first = calls.into_iter().map(|(first, others)| {
            rest.get_or_insert(others);
            first
        });
        let first = A::join(first.collect());
        let Some(rest) = rest else { return Ok(None) };
        Ok(Some((first.to_device(device).map_err(WireError::new)?, rest)))
    }
}

/// A method, the actor that has to run its calls, and the generation: calls of different generations are
/// never put together.
type Key = (&'static str, Option<usize>, u64);

/// The batches of a wrapper's methods.
pub(crate) struct Batchers {
    pub(crate) batching: Batching,
    /// The process that has the batchers' calls. A fork has copies, whose results never come.
    owner: u32,
    /// By method, by the actor that has to run the call, and by generation.
    methods: Mutex<HashMap<Key, Arc<Batcher>>>,
}

impl Batchers {
    pub(crate) fn new(batching: Batching) -> Arc<Self> {
        Arc::new(Self { batching, owner: process_id(), methods: Mutex::default() })
    }

    /// Sizes and waiting times of the batches, by method.
    pub(crate) fn reports(&self) -> Vec<BatchReport> {
        let mut reports: Vec<_> = self.methods.lock().values().map(|batcher| batcher.report()).collect();
        reports.sort_by(|one, other| one.method.cmp(&other.method));
        reports
    }

    /// Returns `true` if no call of a generation waits for its batch.
    pub(super) fn are_sent(&self, program: u64) -> bool {
        let methods = self.methods.lock();
        methods.iter().all(|((_, _, of), batcher)| *of != program || batcher.is_empty())
    }

    /// Forgets the batches of a generation that gets no further calls. Those that wait run.
    pub(super) fn forget(&self, program: u64) {
        let forgotten: Vec<_> = self.methods.lock().extract_if(|(_, _, of), _| *of == program).collect();
        drop(forgotten);
    }

    fn of(
        self: &Arc<Self>,
        caller: &Caller,
        program: &Arc<Program>,
        method: &'static str,
        batch: &FnToken,
        is_repeatable: bool,
    ) -> Arc<Batcher> {
        let key = (method, caller.pinned, program.key);
        if let Some(batcher) = self.methods.lock().get(&key) {
            return Arc::clone(batcher);
        }
        let template = Template {
            program: Arc::clone(program),
            method,
            handler: batch.clone(),
            attempts: caller.options.attempts,
            actor: caller.options.actor,
            pinned: caller.pinned,
            is_repeatable,
        };
        caller.generations.watch(self);
        // Without the lock: on Ray, this asks the cluster.
        let batcher = Arc::new(Batcher::new(template, self.batching, Arc::clone(&caller.engine)));
        Arc::clone(self.methods.lock().entry(key).or_insert(batcher))
    }
}

impl Caller {
    /// Calls a method in a worker. If the wrapper puts calls together, this call may become part of
    /// a batch.
    pub fn remote_batch<P, const INDEX: usize, A, T>(&self, arguments: A) -> Pending<T>
    where
        P: BatchMethod<INDEX, A, T>,
        A: BatchArguments,
        T: RowsResult,
    {
        self.batched::<P, INDEX, A, T, T>(arguments, |reader| (P::wire().1.take)(reader))
    }

    /// Calls a method in a worker with a single row.
    pub fn remote_row<P, const INDEX: usize, A, T>(&self, arguments: A) -> Pending<T::Row>
    where
        P: BatchMethod<INDEX, A, T>,
        A: BatchArguments,
        T: RowsResult,
    {
        self.batched::<P, INDEX, A, T, T::Row>(arguments, |reader| {
            let result = (P::wire().1.take)(reader)?;
            result
                .into_row()
                .ok_or_else(|| WireError::new("the result of one row has another number of rows".to_owned()))
        })
    }

    pub(super) fn batched<P, const INDEX: usize, A, T, R>(
        &self,
        arguments: A,
        take: fn(&mut Reader) -> Result<R, WireError>,
    ) -> Pending<R>
    where
        P: BatchMethod<INDEX, A, T>,
        A: BatchArguments,
        T: RowsResult,
    {
        let alone = Method::new::<P>(P::SOURCE.name, serve_rows::<P, INDEX, A, T>);
        let put = |writer: &mut Writer| arguments.put(&P::wire().0, writer);
        if self.batchers.is_none() {
            return self.call(alone, put, take);
        }
        let batch = FnToken::of(serve_batch::<P, INDEX, A, T> as super::hosted::Handler<P>);
        let handlers = alone.handler.and_then(|alone| Ok((alone, batch.map_err(|error| error.to_string())?)));
        let handlers = handlers.map_err(|reason| CallError::from(StartError::call(P::SOURCE.name, reason)));
        let request = handlers.and_then(|(alone, batch)| {
            let (rows, row_cost, key) = size::<P, INDEX, A, T>(&arguments)?;
            let (method, is_repeatable) = (P::SOURCE.name, !P::SOURCE.exclusive);
            Ok(BatchRequest { method, alone, batch, is_repeatable, rows, row_cost, key })
        });
        match request {
            Ok(request) => self.call_in_batch(request, put, take),
            Err(error) => self.failed(error, take, P::SOURCE.name),
        }
    }

    /// Calls a method that may become part of a batch.
    pub(crate) fn call_in_batch<R>(
        &self,
        request: BatchRequest,
        put: impl FnOnce(&mut Writer) -> Result<(), WireError>,
        take: fn(&mut Reader) -> Result<R, WireError>,
    ) -> Pending<R> {
        let BatchRequest { method, alone, batch, is_repeatable, rows, row_cost, key } = request;
        let Some(batchers) = &self.batchers else {
            return self.call(Method { name: method, handler: Ok(alone) }, put, take);
        };
        // Before any lock, which a thread that does not exist in a fork may hold.
        if batchers.owner != process_id() {
            return Pending::failed(CallError::forked(method), take, method, &Arc::default(), Observed::default());
        }
        let mut writer = Writer::default();
        if let Err(error) = put(&mut writer) {
            return self.failed(argument_error(method, error.to_string()), take, method);
        }
        let args = writer.finish().shared();
        let bytes = args.segments.iter().map(|segment| segment.len()).sum();
        let size = Size { rows, bytes, row_cost };
        let (deadline, grace, observed) = (self.options.deadline(), self.options.grace, self.options.observed());
        let entering = self.generations.of_call();
        let batcher = batchers.of(self, &entering.program, method, &batch, is_repeatable);
        let (caller, answer) = Waiter::new(method, deadline, grace, None, &entering.program.tally, observed);
        let canceller = Canceller { waiter: Arc::downgrade(&caller), queue: Queue::Batcher(Arc::downgrade(&batcher)) };
        let mut pending = Pending::new(answer, take, method, entering.program.arena.id(), canceller);
        let member = Member { args, handler: alone, size, key, caller, since: Instant::now() };
        match batcher.submit(member, self.options.wait) {
            Ok(lone) => pending.receive_by(lone),
            Err(refused) => {
                let (member, error) = *refused;
                member.caller.answer(Err(error));
            }
        }
        // A swap that has ended since this call took its program has forgotten the batches before this
        // call made one, which would keep the old weights.
        if !self.generations.is_live(&entering.program) {
            batchers.forget(entering.program.key);
        }
        pending
    }
}

/// A call that may become part of a batch.
pub(crate) struct BatchRequest {
    pub(crate) method: &'static str,
    /// The function that runs the call alone.
    pub(crate) alone: FnToken,
    /// The function that runs a batch.
    pub(crate) batch: FnToken,
    /// Whether the call may run again after its batch has failed.
    pub(crate) is_repeatable: bool,
    pub(crate) rows: usize,
    /// The cost of the most expensive row.
    pub(crate) row_cost: usize,
    /// What the calls of a batch have in common.
    pub(crate) key: Vec<u8>,
}

fn argument_error(method: &str, reason: String) -> CallError {
    CallError::Wire { method: method.to_owned(), part: CallPart::Arguments, reason }
}

/// Number of rows, largest cost of a row, and key of a call.
fn size<P, const INDEX: usize, A, T>(arguments: &A) -> Result<(usize, usize, Vec<u8>), CallError>
where
    P: BatchMethod<INDEX, A, T>,
    A: BatchArguments,
    T: RowsResult,
{
    let name = P::SOURCE.name;
    let first = arguments.first();
    // Runs the user's cost function.
    let row_cost = panics::caught(|| first.row_cost(&P::cost))
        .map_err(|panic| argument_error(name, format!("the function that computes the cost panicked: {panic}")))?;
    let mut rest = Writer::default();
    arguments.put_rest(&P::wire().0, &mut rest).map_err(|error| argument_error(name, error.to_string()))?;
    let mut key = first.shape();
    key.extend(rest.finish().segments.iter().flat_map(|segment| segment.iter().copied()));
    Ok((first.rows(), row_cost, key))
}

/// Runs a call alone in a worker. The result needs as many rows as the argument, as in a batch.
fn serve_rows<P, const INDEX: usize, A, T>(
    pipeline: &mut P,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), WireError>
where
    P: BatchMethod<INDEX, A, T>,
    A: BatchArguments,
    T: RowsResult,
{
    let (wire, result) = P::wire();
    let arguments = A::take(&wire, reader)?;
    let rows = arguments.first().rows();
    match pipeline.run(arguments).divide(&[rows]) {
        Divided::Parts(parts) => parts.first().map_or(Ok(()), |part| (result.put)(part, writer)),
        Divided::Error(error) => (result.put)(&error, writer),
        Divided::WrongNumber(found) => Err(WireError::new(wrong_number(P::SOURCE.name, rows, found))),
    }
}

fn wrong_number(method: &str, rows: usize, found: usize) -> String {
    format!("`{method}` returned {found} rows for {rows} rows; it has to return one for each")
}

/// Runs a batch in a worker. A call whose arguments cannot be read fails alone.
fn serve_batch<P, const INDEX: usize, A, T>(
    pipeline: &mut P,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), WireError>
where
    P: BatchMethod<INDEX, A, T>,
    A: BatchArguments,
    T: RowsResult,
{
    let (wire, _) = P::wire();
    let device = reader.device().clone();
    let is_apart = host::is_apart(&device);
    let message = reader.take_message();
    let (mut calls, mut failed) = (Vec::new(), Vec::new());
    for call in take_apart(message).map_err(WireError::new)? {
        let take = if is_apart { A::take_rows } else { A::take };
        let read = |call| take(&wire, &mut Reader::new(call, device.clone()));
        match call.and_then(|call| read(call).map_err(|error| wire_error(&error))) {
            Ok(arguments) => {
                calls.push(arguments);
                failed.push(None);
            }
            Err(error) => failed.push(Some(error)),
        }
    }
    let mut results = run_joined::<P, INDEX, A, T>(pipeline, calls, &device)?.into_iter();
    let missing = || Err(wire_error(&WireError::new("the batch has too few results".to_owned())));
    let parts = failed.into_iter().map(|failed| match failed {
        Some(error) => Err(error),
        None => results.next().unwrap_or_else(missing),
    });
    writer.replace(join(parts.collect()).map_err(WireError::new)?);
    Ok(())
}

/// Runs several calls as one. Returns the result of each.
fn run_joined<P, const INDEX: usize, A, T>(
    pipeline: &mut P,
    calls: Vec<A>,
    device: &Device,
) -> Result<Vec<Result<Outgoing, MethodError>>, WireError>
where
    P: BatchMethod<INDEX, A, T>,
    A: BatchArguments,
    T: RowsResult,
{
    let rows: Vec<_> = calls.iter().map(|call| call.first().rows()).collect();
    let Some(joined) = A::join(calls, device)? else { return Ok(Vec::new()) };
    let put = |value: &T| {
        let mut writer = Writer::default();
        (P::wire().1.put)(value, &mut writer).map_err(|error| wire_error(&error))?;
        Ok(writer.finish())
    };
    let mut result = pipeline.run(joined);
    if host::is_apart(device) {
        // All rows at once, and not those of each call.
        result = result.to_host().map_err(WireError::new)?;
    }
    match result.divide(&rows) {
        Divided::Parts(parts) => Ok(parts.iter().map(put).collect()),
        // The calls of a method that takes `&self` are repeated one by one, since the error may be
        // that of a single row.
        Divided::Error(_) if !P::SOURCE.exclusive => {
            Err(WireError::new(format!("`{}` returned an error for a batch", P::SOURCE.name)))
        }
        Divided::Error(error) => Ok(rows.iter().map(|_| put(&error)).collect()),
        Divided::WrongNumber(found) => {
            let reason = wrong_number(P::SOURCE.name, rows.iter().sum(), found);
            let error = MethodError::Wire { what: CallPart::Result.name().to_owned(), reason };
            Ok(vec![Err(error); rows.len()])
        }
    }
}

fn wire_error(error: &WireError) -> MethodError {
    MethodError::Wire { what: CallPart::ArgumentsOrResult.name().to_owned(), reason: error.to_string() }
}
