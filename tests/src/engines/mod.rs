//! The conformance suite of engines: what a program may rely on wherever its calls run.
//!
//! `tests/engines.rs` runs it on threads and on local processes, `tests/ray_engines.rs` on a Ray
//! cluster.

pub mod actors;
pub mod batches;
pub mod bulk;
pub mod cancellation;
pub mod elastic;
pub mod failures;
pub mod graph_fields;
pub mod graphs;
pub mod lifecycle;
pub mod models;
pub mod observation;
pub mod stream_model;
pub mod streams;
pub mod swap;
pub mod swap_faults;
pub mod tasks;
pub mod traces;

use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::engine::Backend;
use ray_zerocopy::{ActorWrapper, Actors, TaskWrapper};

use crate::models::{TestModel, TestModelConfig};

/// Rows and columns of the model.
const SIZE: usize = 32;

/// An engine under test.
pub trait EngineUnderTest {
    /// Its backend.
    type Backend: Backend;

    /// A backend with this number of workers of one thread each.
    fn backend(workers: usize) -> Self::Backend;

    /// Whether a worker that dies can be replaced: not if it is a thread.
    const REPLACES_WORKERS: bool;

    /// Whether the workers of tasks are known, so that each of them loads new weights before calls run on them.
    /// Otherwise one of them tries the weights, and the others load them with their first call.
    const KNOWS_WORKERS: bool = true;

    /// Whether calls wait in a queue that is not that of the engine.
    const PASSES_CALLS_ON: bool = false;

    /// Number of items of a stream that are made and count neither as read nor as waiting: one that
    /// the worker holds, and those on their way.
    const ITEMS_UNDER_WAY: usize = 1;
}

fn model() -> TestModel {
    TestModelConfig::new(SIZE).init(&Device::flex())
}

fn input(rows: usize) -> Tensor<2> {
    Tensor::random([rows, SIZE], Distribution::Default, &Device::flex())
}

fn tasks<E: EngineUnderTest>(workers: usize) -> TaskWrapper<TestModel> {
    TaskWrapper::on(&E::backend(workers), &model()).expect("the model can be shared")
}

fn actors<E: EngineUnderTest>(count: usize) -> Actors<TestModel> {
    let wrapper = ActorWrapper::on(&E::backend(count), &model()).expect("the model can be shared");
    wrapper.threads_per_worker(1).spawn(count).expect("the actors start")
}

/// Expands to a module with one test for each function of the suite, run on an engine. With `elastic`,
/// the part of the suite for pools of this machine, whose number of workers is known and may change.
#[macro_export]
macro_rules! engine_conforms {
    ($module:ident, $engine:ty) => {
        mod $module {
            use $crate::engines::{actors, batches, bulk, cancellation, failures, graph_fields, graphs, lifecycle};
            use $crate::engines::{observation, streams, swap, swap_faults, tasks, traces};

            $crate::engine_conforms!(@tests $engine;
                tasks::results_are_those_of_the_pipeline tasks::large_tensors_travel_both_ways
                tasks::values_and_containers_travel tasks::errors_of_a_method_are_values
                tasks::results_can_be_gathered_and_awaited tasks::results_remain_after_a_timeout
                actors::each_actor_has_its_own_state actors::calls_to_one_actor_keep_their_order
                actors::changes_of_weights_are_private
                batches::waiting_calls_run_as_one batches::lone_call_runs_alone batches::limits_are_kept
                batches::rows_of_tensors_are_divided batches::calls_with_other_arguments_run_apart
                batches::one_bad_row_is_its_own_error batches::failed_batch_is_repeated_row_by_row
                batches::wrong_number_of_rows_is_an_error batches::batch_of_an_actor_changes_its_state_once
                batches::panicking_cost_is_an_error batches::deadline_leaves_the_batch
                batches::call_waits_for_others_if_asked batches::empty_calls_are_answered
                batches::call_outlives_its_wrapper batches::shut_down_runs_calls_that_wait
                cancellation::queued_call_never_runs cancellation::running_method_finds_out
                cancellation::stubborn_worker_is_replaced cancellation::dropping_cancels_if_asked
                cancellation::member_of_a_batch_leaves_it cancellation::result_that_has_arrived_stays
                cancellation::call_to_an_actor_is_cancelled
                streams::items_arrive_in_order streams::items_arrive_while_the_method_runs
                streams::tensors_are_items streams::stream_can_be_awaited
                streams::slow_reader_slows_the_worker_down streams::method_ends_with_its_reader
                streams::cancelled_stream_ends_with_an_error streams::panic_follows_the_items
                streams::dead_worker_ends_the_stream streams::deadline_ends_a_stream
                streams::actor_keeps_its_state_between_streams streams::stream_outlives_its_wrapper
                streams::closing_workers_finish_their_streams
                bulk::each_of_many_calls_has_its_own_result bulk::results_of_all_sizes_arrive
                bulk::order_is_kept_while_calls_are_cancelled bulk::many_calls_of_one_actor_keep_their_order bulk::slow_call_does_not_hold_the_others
                bulk::cancelled_calls_behind_a_slow_one_never_run bulk::deadlines_behind_a_slow_call_are_kept
                bulk::death_costs_only_the_call_that_ran bulk::death_of_an_actor_costs_only_the_call_that_ran
                lifecycle::actor_is_prewarmed_before_its_first_call lifecycle::worker_of_tasks_is_prewarmed
                lifecycle::panic_of_a_prewarm_function_is_a_load_error lifecycle::draining_runs_what_is_queued
                lifecycle::draining_aborts_what_takes_too_long
                graphs::calls_of_a_graph_run_as_one graphs::compiled_graph_gives_the_same_answers
                graphs::graph_without_rows_is_refused
                graph_fields::pipeline_with_a_compiled_graph_gives_the_same_answers
                failures::a_panic_is_an_error_of_the_call failures::a_panic_resets_an_actor
                failures::unserialisable_result_is_an_error failures::a_deadline_ends_the_wait
                failures::closed_engine_refuses_calls
                swap::swap_under_load_loses_and_mixes_nothing swap::calls_under_way_keep_their_weights
                swap::other_pipelines_are_refused swap::corrupt_arena_is_refused
                swap::failed_check_leaves_the_old_weights swap::worker_that_cannot_load_leaves_the_old_weights
                swap::worker_that_dies_while_it_loads_is_replaced swap::swaps_wait_for_each_other
                swap::canary_gets_its_share swap::actors_swap_and_load_the_current_weights_again
                swap::state_of_actors_is_lost_only_if_asked swap::state_of_actors_moves_with_a_swap
                swap_faults::check_cannot_swap_again swap_faults::canary_counts_its_calls
                swap_faults::canary_of_actors_with_state_is_refused
                swap_faults::batches_of_old_weights_are_forgotten
                observation::outcomes_add_up_to_the_calls
                traces::spans_lead_to_the_method traces::each_of_many_calls_has_its_own_spans
                traces::calls_of_a_batch_are_linked
            );
        }
    };
    (elastic $module:ident, $engine:ty) => {
        mod $module {
            use $crate::engines::{elastic, lifecycle, swap, swap_faults};

            $crate::engine_conforms!(@tests $engine;
                elastic::pool_grows_for_waiting_calls_and_shrinks elastic::empty_pool_starts_a_worker_for_a_call
                elastic::lone_calls_do_not_grow_a_pool elastic::shrinking_loses_no_call
                elastic::pool_without_memory_serves_on elastic::empty_pool_without_memory_is_an_error
                elastic::range_without_a_worker_is_refused elastic::closing_pool_runs_what_waits
                swap::dormant_workers_load_the_current_weights swap_faults::swaps_beside_restarts_lose_nothing
                swap_faults::pool_closes_beside_swaps swap_faults::empty_pool_tries_new_weights
                lifecycle::restart_replaces_every_actor lifecycle::restart_does_not_wait_for_a_reader
                lifecycle::restart_of_a_closed_pool_is_an_error
                lifecycle::restart_keeps_the_size_of_an_elastic_pool
            );
        }
    };
    (@tests $engine:ty; $($place:ident::$name:ident)*) => {$(
        #[test]
        fn $name() {
            $place::$name::<$engine>();
        }
    )*};
}
