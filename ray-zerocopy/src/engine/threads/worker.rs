//! Main loop of a thread: loads programs and runs calls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::mailbox::{Mailbox, Running};
use super::shared::Shared;
use crate::engine::call::Call;
use crate::engine::call::items::Items;
use crate::engine::cancellation;
use crate::engine::program::{Attached, Program};
use crate::engine::queue::failures::fail_shut_down;
use crate::engine::queue::job::Job;
use crate::engine::queue::scheduler::Assignment;
use crate::engine::served::{ItemSink, LoadedProgram, MethodError, Served, take_state};
use crate::engine::worker_nodes::{Copy, LoadOptions, load_copy};
use crate::error::call::{CallError, Worker};
use crate::os::cpu_placement::bind_thread;
use crate::panics;

/// One thread of a pool, and the programs that it has loaded.
pub(super) struct WorkerThread {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    programs: HashMap<u64, Box<dyn Served>>,
}

impl WorkerThread {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Self {
        let mailbox = Arc::new(Mailbox::new(Worker { index, pid: std::process::id() }));
        Self { shared, mailbox, programs: HashMap::new() }
    }

    /// Runs until the pool closes.
    pub(super) fn run(mut self) {
        let index = self.mailbox.worker.index;
        let mailbox = Arc::clone(&self.mailbox);
        cancellation::install_for_thread(move || mailbox.is_cancelled());
        let shared = Arc::clone(&self.shared);
        // A call that a batch has sent while the pool closes still needs a worker.
        while let Some(is_additional) = shared.queue.wait_until_wanted(index) {
            if is_additional && let Err(reason) = shared.check_memory(index) {
                shared.growth_failed(index, &reason);
                continue;
            }
            shared.queue.process_started(index, Ok(Arc::clone(&self.mailbox)));
            if let Some(program) = shared.program() {
                // A failure is the result of the pool's start.
                drop(self.load(&program));
            }
            self.run_jobs();
            let connections = shared.queue.process_ended(index);
            drop(connections);
            // A thread that waits until it is wanted again keeps no pipeline.
            drop(panics::caught(|| std::mem::take(&mut self.programs)));
        }
        shared.queue.timer.notify_all();
    }

    /// Runs jobs until the pool ends the thread.
    fn run_jobs(&mut self) {
        let mut next = self.next_job();
        loop {
            let job = match next {
                Some(assignment) => {
                    self.shared.wake_callers(&assignment);
                    assignment.job
                }
                None => self.mailbox.wait(),
            };
            match job {
                Job::Call(call) => {
                    next = self.call(call);
                    continue;
                }
                // A thread takes the next call as fast as one of a bundle.
                Job::Bundle(calls) => {
                    let index = self.mailbox.worker.index;
                    let put_back = self.shared.queue.lock().put_back(calls, index);
                    put_back.assignments.into_iter().for_each(|assignment| self.shared.send(assignment));
                    put_back.stranded.into_iter().for_each(fail_shut_down);
                }
                Job::Load(program) => drop(self.load(&program)),
                Job::Forget(key) => {
                    let forgotten = self.programs.remove(&key);
                    // A panic in the pipeline's `drop` has been printed, and does not affect other
                    // programs.
                    drop(panics::caught(|| drop(forgotten)));
                }
                Job::ShutDown => return,
            }
            next = self.next_job();
        }
    }

    /// The next job, if there is one. Otherwise the thread is idle.
    fn next_job(&self) -> Option<Assignment<Call, Mailbox>> {
        self.shared.queue.lock().next_job(&self.mailbox)
    }

    /// Runs a call, and answers it. Returns the next job, which is assigned before: so the caller's next
    /// call finds the thread either busy or idle.
    fn call(&mut self, mut call: Call) -> Option<Assignment<Call, Mailbox>> {
        if call.is_ticket() {
            if !call.fill() {
                return self.next_job();
            }
            if let Some((deadline, _)) = call.deadline {
                self.shared.queue.running_until(self.mailbox.worker.index, deadline);
            }
        }
        let Call { program, method, handler, args, reply, deadline, state_of, .. } = call;
        let items = reply.items().cloned();
        if !self.mailbox.begin(Running { reply, method, deadline }) {
            return self.next_job();
        }
        let worker = self.mailbox.worker;
        let items = items.map(|items| self.item_sink(items));
        let result = self.ensure_loaded(&program).and_then(|()| {
            let span = self.mailbox.begins();
            let _entered = span.enter();
            let result = match (state_of, self.programs.get_mut(&program.key)) {
                (Some(from), _) => take_state(&mut self.programs, from, program.key, &handler),
                (None, Some(served)) => served.call(&handler, args.received(), items),
                (None, None) => Err(MethodError::not_loaded()),
            };
            result.map(|message| message.received()).map_err(|error| error.of(method, worker))
        });
        let next = self.next_job();
        self.mailbox.finish(result);
        // May drop the last handle of the program, and so run user code.
        drop(panics::caught(|| drop(program)));
        next
    }

    /// Hands the items of a stream to its reader, which takes them in this process.
    fn item_sink(&self, items: Arc<Items>) -> ItemSink {
        let shared = Arc::clone(&self.shared);
        let index = self.mailbox.worker.index;
        let must_wait = move || !shared.queue.lock().is_awaited(index);
        Box::new(move |item| Ok(items.push_in_turn(item.received(), &must_wait)))
    }

    /// Loads a program if it is not loaded.
    fn ensure_loaded(&mut self, program: &Arc<Program>) -> Result<(), CallError> {
        if self.programs.contains_key(&program.key) { Ok(()) } else { self.load(program) }
    }

    fn load(&mut self, program: &Arc<Program>) -> Result<(), CallError> {
        let begun = Instant::now();
        let Program { loader, device, strict, memory, prewarm, .. } = &**program;
        let worker = self.mailbox.worker;
        let Copy { arena, seat } = self.shared.nodes.copy_for(program, worker.index);
        let (device, prewarm) = (device.clone(), prewarm.clone());
        let options = LoadOptions { device, strict: *strict, memory: *memory, prewarm };
        let loaded = load_copy(arena, seat, bind_pool, loader, options);
        let result = loaded.map_err(|error| CallError::Load { worker, error });
        let result = result.map(|(LoadedProgram { served, copied, device, decoding, prewarming }, memory)| {
            self.programs.insert(program.key, served);
            let took = begun.elapsed().saturating_sub(memory.took + prewarming);
            Attached { copied, device, took, decoding, memory, instructions: Attached::instructions() }
        });
        let loaded = result.as_ref().map(|_| ()).map_err(Clone::clone);
        let is_first_start = self.shared.queue.lock().load_finished(worker.index, program.key, result);
        if is_first_start {
            self.shared.queue.progress.notify_all();
        }
        loaded
    }
}

/// Binds the threads of this worker, which is a pool that computes with all of them.
fn bind_pool(cores: &[usize]) -> Result<(), String> {
    rayon::broadcast(|_| bind_thread(cores)).into_iter().collect()
}
