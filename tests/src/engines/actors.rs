//! Actors.

use ray_zerocopy::gather;

use super::{EngineUnderTest, actors, input, model};

pub fn each_actor_has_its_own_state<E: EngineUnderTest>() {
    let actors = actors::<E>(2);
    let (first, second) = (actors.actor(0), actors.actor(1));
    assert_eq!((first.count(1).wait().unwrap(), first.count(1).wait().unwrap()), (1, 2));
    assert_eq!(second.count(5).wait().unwrap(), 5);
    assert_eq!(first.count(0).wait().unwrap(), 2);
}

pub fn calls_to_one_actor_keep_their_order<E: EngineUnderTest>() {
    let actors = actors::<E>(2);
    let actor = actors.actor(1);
    // The first results arrive while later calls are made.
    let sums = gather((1..=500).map(|by| actor.count(by))).wait().unwrap();
    assert_eq!(sums, (1..=500).map(|last| last * (last + 1) / 2).collect::<Vec<_>>());
}

pub fn changes_of_weights_are_private<E: EngineUnderTest>() {
    let model = model();
    let wrapper = ray_zerocopy::ActorWrapper::on(&E::backend(2), &model).unwrap();
    let actors = wrapper.spawn(2).unwrap();
    assert_eq!(actors.actor(0).zero_weights().wait().unwrap(), 0.0);
    let input = input(3);
    let expected = model.forward(input.clone()).into_data();
    assert_eq!(actors.actor(1).forward(input.clone()).wait().unwrap().into_data(), expected);
    assert_ne!(actors.actor(0).forward(input).wait().unwrap().into_data(), expected);
    wrapper.arena().verify().unwrap();
}
