//! Graphs that are traced on a variant.

use burn::tensor::{Device, Tensor};
use ray_zerocopy::jit::{self, JitActorWrapper, TracedGraph};
use ray_zerocopy::{ActorWrapper, Arena, share};

use crate::speech::{Speech, small};

#[test]
fn graph_borrows_from_the_variant_and_from_its_base() {
    let mut pipeline = small();
    let base = share(&pipeline).unwrap();
    pipeline.body[1] = pipeline.config.layer();
    let tuned = base.variant(&pipeline).unwrap();
    let device = Device::flex();
    let x = Tensor::<2>::ones([2, 64], &device);
    let wrapper = ActorWrapper::<Speech>::from_arena(tuned.clone());
    let graph = jit::trace(&*wrapper.load().unwrap())
        .arena(&tuned)
        .input("x", x.clone())
        .forward(|model, inputs| {
            let x = inputs.float::<2>("x")?;
            Ok(model.head.forward(model.body.iter().fold(x, |x, layer| layer.forward(x))))
        })
        .unwrap();
    let expected = pipeline.head.forward(pipeline.body.iter().fold(x.clone(), |x, layer| layer.forward(x)));
    let run = |graph: &TracedGraph| {
        let outputs = graph.load("cpu").unwrap().run([("x", x.clone())]).unwrap();
        outputs.float::<2>("output").unwrap().into_data()
    };
    let expected = expected.into_data();
    assert_eq!(run(&graph), expected);
    let mut bases: Vec<_> = graph.arena().bases().map(|(id, _)| id.to_hex()).collect();
    let mut both = [base.id().to_hex(), tuned.id().to_hex()];
    bases.sort();
    both.sort();
    assert_eq!(bases, both);
    assert!(graph.arena().own_bytes() < 16 << 10);

    // In workers, which get all regions.
    let actors = JitActorWrapper::new(&graph).spawn(2).unwrap();
    let outputs = actors.run([("x", x.clone())]).wait().unwrap();
    assert_eq!(outputs.float::<2>("output").unwrap().into_data(), expected);

    // A graph can be saved like a variant, and whole.
    let folder = tempfile::tempdir().unwrap();
    let [small, whole] = ["small.rzg", "whole.rzg"].map(|name| folder.path().join(name));
    graph.arena().save_variant(&small).unwrap();
    graph.save(&whole).unwrap();
    let opened = Arena::open_variant(&small, &tuned).unwrap();
    assert_eq!(run(&TracedGraph::from_arena(&opened).unwrap()), expected);
    assert_eq!(run(&TracedGraph::open(&whole).unwrap()), expected);
}
