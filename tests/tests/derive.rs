//! Behaviour of `#[derive(Pipeline)]`: shared and copied fields, paths and errors.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::HashMap;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig, LinearLayout};
use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::error::{LoadError, ShareError};
use ray_zerocopy::{Pipeline, load, share};
use ray_zerocopy_tests::models::{AllFields, Head};
use serde::{Deserialize, Serialize};

fn flex() -> Device {
    Device::flex()
}

#[test]
fn every_field_and_container_is_bit_identical() {
    let original = AllFields::filled(&flex());
    let arena = share(&original).unwrap();
    arena.verify().unwrap();
    let twin = load::<AllFields>(&arena, &flex()).unwrap();
    assert_eq!(twin.copied(), []);

    // Sharing the loaded pipeline gives the same content: weights, copied fields and structure.
    assert_eq!(share(&*twin).unwrap().fingerprint(), arena.fingerprint());

    let x = Tensor::<2>::random([2, 3], Distribution::Default, &flex());
    let same = |left: &Linear, right: &Linear| {
        assert_eq!(left.forward(x.clone()).into_data(), right.forward(x.clone()).into_data());
    };
    same(&original.module, &twin.module);
    same(&original.by_name["fr"][2], &twin.by_name["fr"][2]);
    same(&original.by_number[&11], &twin.by_number[&11]);
    same(&original.by_language[1], &twin.by_language[1]);
    same(&original.queue[1], &twin.queue[1]);
    same(original.some.as_ref().unwrap(), twin.some.as_ref().unwrap());
    same(&original.boxed, &twin.boxed);
    same(&original.counted, &twin.counted);
    same(&original.array[1], &twin.array[1]);
    same(&original.pair.0, &twin.pair.0);
    let (Head::Scaled { layer: a, by: x2 }, Head::Scaled { layer: b, by: y2 }) = (&original.head, &twin.head) else {
        panic!("another variant")
    };
    same(a, b);
    assert_eq!(x2, y2);

    assert_eq!(twin.bare.to_data().as_bytes(), original.bare.to_data().as_bytes());
    assert_eq!(twin.ints.to_data(), original.ints.to_data());
    assert_eq!(twin.bools[0].to_data(), original.bools[0].to_data());
    assert_eq!(
        (twin.pair.1.as_str(), twin.inner.note.as_str(), twin.inners["a b"].note.as_str()),
        ("pair", "inner", "of many")
    );
    assert_eq!(
        (&twin.text, &twin.numbers, &twin.table, &twin.nested),
        (&original.text, &original.numbers, &original.table, &original.nested)
    );
    assert!(twin.numbers[2].is_sign_negative());
    assert_eq!((twin.name, twin.empty.len()), (-9, 0));
    assert_eq!(twin.skipped, 42, "a skipped field is as init left it");
}

#[test]
fn paths_are_rust_expressions() {
    let arena = share(&AllFields::filled(&flex())).unwrap();
    let paths: Vec<_> = arena.paths().collect();
    for path in [
        "module.weight",
        "block.norm.running_mean",
        "block.layers.1.bias",
        "bare",
        "bools.1",
        "by_name[\"fr\"].2.weight",
        "by_number[11].weight",
        "by_language[\"Fr\"].bias",
        "queue.0.weight",
        "some.weight",
        "boxed.weight",
        "counted.bias",
        "array.1.weight",
        "pair.0.weight",
        "inner.words.weight",
        "inners[\"a b\"].words.weight",
        "heads.1.layer.weight",
    ] {
        assert!(paths.contains(&path), "{path} is not among {paths:#?}");
    }
}

#[derive(Pipeline)]
struct Tied<M: Module + From<Linear> + 'static, const N: usize> {
    #[pipeline(config)]
    config: TiedConfig,
    left: M,
    rest: [Tensor<1>; N],
    word: String,
}

#[derive(Clone, Serialize, Deserialize)]
struct TiedConfig {
    column: bool,
}

impl TiedConfig {
    fn init<M: From<Linear> + Module, const N: usize>(&self, device: &Device) -> Result<Tied<M, N>, String> {
        let layout = if self.column { LinearLayout::Col } else { LinearLayout::Row };
        let left = LinearConfig::new(2, 3).with_layout(layout).init(device).into();
        let rest = std::array::from_fn(|_| Tensor::zeros([2], device));
        Ok(Tied { config: self.clone(), left, rest, word: "init".to_owned() })
    }
}

#[test]
fn generic_pipelines_and_column_layouts_travel() {
    for column in [false, true] {
        let mut tied: Tied<Linear, 2> = TiedConfig { column }.init(&flex()).unwrap();
        tied.word = "shared".to_owned();
        let arena = share(&tied).unwrap();
        let twin = load::<Tied<Linear, 2>>(&arena, &flex()).unwrap();
        assert_eq!(twin.copied(), []);
        assert_eq!(twin.word, "shared");
        let x = Tensor::<2>::random([2, 2], Distribution::Default, &flex());
        assert_eq!(twin.left.forward(x.clone()).into_data(), tied.left.forward(x).into_data());

        let error = load::<Tied<Linear, 3>>(&arena, &flex()).err().unwrap();
        assert!(matches!(error, LoadError::WrongPipeline { .. }), "{error}");
    }
}

/// A pipeline whose `init` can create something else than the pipeline has.
#[derive(Pipeline)]
struct Loose {
    #[pipeline(config)]
    config: LooseConfig,
    heads: HashMap<String, Linear>,
    extra: Option<Linear>,
    shape: Linear,
    shared: [Arc<Linear>; 2],
    drop: Dropout,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct LooseConfig {
    heads: Vec<String>,
    extra: bool,
    width: usize,
    one_arc: bool,
    panics: bool,
}

impl LooseConfig {
    fn init(&self, device: &Device) -> Loose {
        assert!(!self.panics, "this config makes nothing");
        let linear = || LinearConfig::new(2, 2).init(device);
        let one = Arc::new(linear());
        let shared = if self.one_arc { [one.clone(), one] } else { [one, Arc::new(linear())] };
        Loose {
            config: self.clone(),
            heads: self.heads.iter().map(|head| (head.clone(), linear())).collect(),
            extra: self.extra.then(linear),
            shape: LinearConfig::new(2, 2 + self.width).init(device),
            shared,
            drop: DropoutConfig::new(0.5).init(),
        }
    }
}

fn loose() -> Loose {
    LooseConfig::default().init(&flex())
}

fn refused(pipeline: &Loose) -> ShareError {
    share(pipeline).expect_err("the config does not rebuild it")
}

#[test]
fn fields_the_config_does_not_rebuild_are_named() {
    share(&loose()).unwrap();

    let mut more = loose();
    more.heads.insert("fr".to_owned(), LinearConfig::new(2, 2).init(&flex()));
    let error = refused(&more);
    assert!(
        error
            .to_string()
            .starts_with("`heads[\"fr\"].weight` (a float tensor of shape [2, 2]) is in the pipeline, but"),
        "{error}"
    );

    let mut some = loose();
    some.extra = Some(LinearConfig::new(2, 2).init(&flex()));
    assert!(matches!(refused(&some), ShareError::NotRebuilt { path, .. } if path == "extra.weight"));

    let mut less = LooseConfig { extra: true, ..LooseConfig::default() }.init(&flex());
    less.extra = None;
    assert!(matches!(refused(&less), ShareError::NotShared { path, .. } if path == "extra.weight"));

    let mut wide = loose();
    wide.shape = LinearConfig::new(2, 5).init(&flex());
    let error = refused(&wide);
    let expected =
        "`shape.weight` is a float tensor of shape [2, 5] in the pipeline, and a float tensor of shape [2, 2] in";
    assert!(error.to_string().starts_with(expected), "{error}");

    let mut broken = loose();
    broken.config.panics = true;
    let error = refused(&broken);
    assert!(error.to_string().contains("this config makes nothing"), "{error}");
}

#[test]
fn an_arc_that_init_shares_is_named_at_load() {
    let arena = share(&LooseConfig { one_arc: true, ..LooseConfig::default() }.init(&flex())).unwrap();
    let error = load::<Loose>(&arena, &flex()).err().unwrap();
    assert!(matches!(&error, LoadError::SharedArc { path } if path == "shared.0"), "{error}");
}

#[test]
fn flags_of_modules_travel() {
    let mut pipeline = loose();
    pipeline.drop = pipeline.drop.valid();
    let twin = load::<Loose>(&share(&pipeline).unwrap(), &flex()).unwrap();
    assert!(!twin.drop.training.is_enabled());
    let twin = load::<Loose>(&share(&loose()).unwrap(), &flex()).unwrap();
    assert!(twin.drop.training.is_enabled());
}

/// A serde format that loses data.
#[derive(Serialize, Deserialize)]
struct Forgetful {
    #[serde(serialize_with = "twice")]
    number: u32,
}

fn twice<S: serde::Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(number.wrapping_mul(2))
}

#[derive(Pipeline)]
#[pipeline(init = Lossy::new)]
struct Lossy {
    layer: Linear,
    forgetful: Forgetful,
}

impl Lossy {
    fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(1, 1).init(device), forgetful: Forgetful { number: 21 } }
    }
}

#[test]
fn copied_field_that_serde_changes_is_named() {
    let error = share(&Lossy::new(&flex())).unwrap_err();
    assert!(
        error.to_string().starts_with("`forgetful` cannot be copied: it is another value after it was deserialised"),
        "{error}"
    );
}

#[test]
fn arena_lists_shared_and_copied_fields() {
    let arena = share(&AllFields::filled(&flex())).unwrap();
    let weight = arena.tensors().find(|tensor| tensor.path == "module.weight").unwrap();
    assert_eq!((weight.shape, weight.bytes, format!("{:?}", weight.dtype).as_str()), (&[3, 4][..], 48, "F32"));
    let copied: Vec<_> = arena.copied_fields().map(|(path, _)| path).collect();
    let expected =
        ["pair.1", "inner.note", "inners[\"a b\"].note", "head.by", "heads.1.by", "text", "numbers", "table"];
    assert!(expected.iter().all(|path| copied.contains(path)), "{copied:?}");
    assert!(!copied.contains(&"skipped") && copied.contains(&"renamed"), "{copied:?}");
}

#[derive(Pipeline)]
#[pipeline(init = Twins::new)]
struct Twins {
    encoder: Linear,
    decoder: Linear,
    zeros: Vec<Linear>,
}

impl Twins {
    fn new(device: &Device) -> Self {
        let linear = || LinearConfig::new(16, 16).with_bias(false).init(device);
        Self { encoder: linear(), decoder: linear(), zeros: (0..3).map(|_| linear()).collect() }
    }
}

#[test]
fn tied_and_equal_weights_are_stored_once() {
    let mut twins = Twins::new(&flex());
    twins.decoder.weight = twins.encoder.weight.clone();
    for linear in &mut twins.zeros {
        linear.weight = Param::from_tensor(Tensor::zeros([16, 16], &flex()));
    }
    let arena = share(&twins).unwrap();
    let one = 16 * 16 * 4;
    assert_eq!((arena.weight_bytes(), arena.stored_bytes()), (5 * one, 2 * one));

    let twin = load::<Twins>(&arena, &flex()).unwrap();
    assert_eq!(twin.encoder.weight.id, twin.decoder.weight.id, "a tie is one parameter");
    assert_ne!(twin.zeros[0].weight.id, twin.zeros[1].weight.id, "equal weights are not tied");
    let data = |linear: &Linear| linear.weight.val().into_data();
    assert_eq!(data(&twin.encoder), data(&twins.encoder));
    assert_eq!(data(&twin.decoder), data(&twins.encoder));
    assert_eq!(data(&twin.zeros[2]), data(&twins.zeros[2]));
}
