//! Real-world checkpoints whose names and shapes differ from the pipeline's.
//!
//! The files in `tests/cases` reproduce bug reports of other programs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::path::{Path, PathBuf};

use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::module::{Module, Param};
use burn::nn::{
    Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout, RmsNorm, RmsNormConfig,
};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::arena::{Location, Placement};
use ray_zerocopy::error::{CheckpointError, ShareError};
use ray_zerocopy::{ActorWrapper, Checkpoint, Pipeline, load, share_from};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases").join(name)
}

/// Writes a file of tensors whose elements count up from `first`.
fn write(path: &Path, tensors: &[(&str, &[usize], f32)]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape, first)| {
            let count: usize = shape.iter().product();
            (0..count).flat_map(|at| (first + at as f32).to_le_bytes()).collect()
        })
        .collect();
    let views = tensors.iter().zip(&bytes);
    let views =
        views.map(|((name, shape, _), bytes)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

fn stored(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let mut bytes = Vec::new();
    checkpoint
        .stream(name, &mut |some| {
            bytes.extend_from_slice(some);
            Ok(())
        })
        .unwrap();
    bytes.as_chunks().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect()
}

fn in_file() -> Placement {
    #[allow(unsafe_code, reason = "the tests keep the promise of `in_file`")]
    // SAFETY: no test writes to a file after it was created.
    unsafe {
        Placement::in_file()
    }
}

macro_rules! pipeline {
    ($name:ident, $make:expr) => {
        impl $name {
            fn new(device: &Device) -> Self {
                let make: fn(&Device) -> Self = $make;
                make(device)
            }
        }
    };
}

#[derive(Pipeline)]
#[pipeline(init = Clip::new)]
struct Clip {
    clip: ClipHead,
}

#[derive(Module, Debug)]
struct ClipHead {
    logit_scale: Param<Tensor<1>>,
    head: Linear,
}

pipeline!(Clip, |device| Clip {
    clip: ClipHead {
        logit_scale: Param::from_tensor(Tensor::ones([1], device)),
        head: LinearConfig::new(3, 2).init(device),
    },
});

#[test]
fn scalar_tensor_fits_a_tensor_of_one_element() {
    let folder = TempDir::new().unwrap();
    let packed = folder.path().join("scalar.bpk");
    let open = |path: &Path| Checkpoint::open(path).unwrap().from_pytorch().rename("^", "clip.").unwrap();
    let original = open(&case("scalar.safetensors"));
    assert!(original.tensors().any(|tensor| tensor.name == "logit_scale" && tensor.shape.is_empty()));
    let value = stored(&original, "clip.logit_scale");
    Checkpoint::open(case("scalar.safetensors")).unwrap().pack(&packed).unwrap().verify(|_| ()).unwrap();
    for checkpoint in [original, open(&packed), open(&packed).placement(in_file().aligned(4))] {
        let arena = share_from(&Clip::new(&Device::flex()), &checkpoint).unwrap();
        arena.verify().unwrap();
        let model = load::<Clip>(&arena, &Device::flex()).unwrap().strict().unwrap();
        assert_eq!(numbers(model.clip.logit_scale.val()), value);
        assert_eq!(model.clip.logit_scale.dims(), [1]);
    }
    let packed = Checkpoint::open(&packed).unwrap();
    assert!(packed.tensors().any(|tensor| tensor.name == "logit_scale" && tensor.shape.is_empty()));
}

#[derive(Pipeline)]
#[pipeline(init = Language::new)]
struct Language {
    model: Body,
    lm_head: Linear,
}

#[derive(Module, Debug)]
struct Body {
    embed: Embedding,
    norm: RmsNorm,
}

pipeline!(Language, |device| Language {
    model: Body { embed: EmbeddingConfig::new(6, 4).init(device), norm: RmsNormConfig::new(4).init(device) },
    lm_head: LinearConfig::new(4, 6).with_bias(false).with_layout(LinearLayout::Col).init(device),
});

#[ray_zerocopy::remote]
impl Language {
    pub fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        self.lm_head.forward(x)
    }

    /// Whether both weights have the same address in this process.
    pub fn tied(&self) -> bool {
        let at = |tensor: Tensor<2>| match tensor.into_dispatch().kind {
            DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => tensor.bytes().as_ptr() as usize,
            _ => panic!("not on flex"),
        };
        at(self.model.embed.weight.val()) == at(self.lm_head.weight.val())
    }
}

#[test]
fn head_tied_to_the_embedding_is_stored_once() {
    let open = || Checkpoint::open(case("tied.safetensors")).unwrap().from_pytorch();
    let model = Language::new(&Device::flex());
    let error = share_from(&model, &open()).unwrap_err();
    assert!(matches!(&error, ShareError::NotInCheckpoint { tied: Some(name), .. } if name == "model.embed.weight"));
    let words = r#"if it is tied to `model.embed.weight`, which has its shape, say so with `.tie("lm_head.weight", "model.embed.weight")`"#;
    assert!(error.to_string().contains(words), "{error}");

    let embedding = stored(&open(), "model.embed.weight");
    for placement in [Placement::sealed(), in_file().aligned(4)] {
        let checkpoint = open().tie("lm_head.weight", "model.embed.weight").unwrap().placement(placement);
        let arena = share_from(&model, &checkpoint).unwrap();
        assert_eq!((arena.weight_bytes(), arena.stored_bytes()), (96 + 16 + 96, 96 + 16));
        let loaded = load::<Language>(&arena, &Device::flex()).unwrap().strict().unwrap();
        assert_eq!(numbers(loaded.lm_head.weight.val().transpose()), embedding);
        let x = Tensor::<2>::ones([1, 4], &Device::flex());
        let expected = loaded.logits(x.clone()).into_data();
        let actors = ActorWrapper::<Language>::from_arena(arena).strict().spawn(2).unwrap();
        assert_eq!(actors.logits(x).wait().unwrap().into_data(), expected);
        assert!(actors.tied().wait().unwrap());
    }
    let error = open().tie("lm_head.weight", "embed").map(drop).unwrap_err().to_string();
    assert!(error.starts_with("`lm_head.weight` cannot be tied: the checkpoint has no `embed`"), "{error}");
    let error = open().tie("model.norm.weight", "model.embed.weight").map(drop).unwrap_err().to_string();
    assert!(error.contains("the checkpoint has a tensor of that name"), "{error}");
}

#[derive(Pipeline)]
#[pipeline(init = Attention::new)]
struct Attention {
    attn: Projections,
}

#[derive(Module, Debug)]
struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
    out_proj: Linear,
}

pipeline!(Attention, |device| {
    let linear = || LinearConfig::new(4, 4).init(device);
    Attention { attn: Projections { query: linear(), key: linear(), value: linear(), out_proj: linear() } }
});

#[derive(Pipeline)]
#[pipeline(init = Fused::new)]
struct Fused {
    attn: FusedProjections,
}

#[derive(Module, Debug)]
struct FusedProjections {
    qkv: Linear,
    out_proj: Linear,
}

pipeline!(Fused, |device| Fused {
    attn: FusedProjections {
        qkv: LinearConfig::new(4, 12).init(device),
        out_proj: LinearConfig::new(4, 4).init(device),
    },
});

#[test]
fn fused_projections_are_split_and_put_together() {
    let open = || Checkpoint::open(case("qkv.safetensors")).unwrap().from_pytorch();
    let (weight, bias) = (stored(&open(), "attn.in_proj_weight"), stored(&open(), "attn.in_proj_bias"));
    let split = || open().split(r"in_proj_(weight|bias)$", ["query.$1", "key.$1", "value.$1"]).unwrap();
    let arena = share_from(&Attention::new(&Device::flex()), &split()).unwrap();
    let model = load::<Attention>(&arena, &Device::flex()).unwrap().strict().unwrap();
    for (at, linear) in [&model.attn.query, &model.attn.key, &model.attn.value].into_iter().enumerate() {
        assert_eq!(numbers(linear.weight.val().transpose()), weight[16 * at..16 * (at + 1)]);
        assert_eq!(numbers(linear.bias.as_ref().unwrap().val()), bias[4 * at..4 * (at + 1)]);
    }
    // Fused again: of parts that lie side by side in one file, and of parts in separate files or in
    // another order.
    let from = [r"query\.(weight|bias)$", r"key\.(weight|bias)$", r"value\.(weight|bias)$"];
    let fused = split().fuse(from, "qkv.$1").unwrap();
    assert!(fused.tensors().all(|tensor| tensor.is_contiguous));
    let arena = share_from(&Fused::new(&Device::flex()), &fused).unwrap();
    let model = load::<Fused>(&arena, &Device::flex()).unwrap();
    assert_eq!(numbers(model.attn.qkv.weight.val().transpose()), weight);
    let [query, key, value] = from;
    let turned = split().fuse([value, key, query], "qkv.$1").unwrap();
    assert!(turned.tensors().any(|tensor| !tensor.is_contiguous));
    let expected = [&weight[32..], &weight[16..32], &weight[..16]].concat();
    assert_eq!(stored(&turned, "attn.qkv.weight"), expected);
    for placement in [Placement::sealed(), in_file().aligned(4)] {
        let turned = split().fuse([value, key, query], "qkv.$1").unwrap().placement(placement);
        let arena = share_from(&Fused::new(&Device::flex()), &turned).unwrap();
        let model = load::<Fused>(&arena, &Device::flex()).unwrap();
        assert_eq!(numbers(model.attn.qkv.weight.val().transpose()), expected);
    }

    let rows = open().split_rows("in_proj_weight", [("q", 8), ("k", 2), ("v", 2)]).unwrap();
    assert_eq!(stored(&rows, "attn.k"), weight[32..40]);
    let refused = |result: Result<Checkpoint, CheckpointError>| result.map(drop).unwrap_err().to_string();
    for (error, words) in [
        (refused(open().split("in_proj_weight", ["a", "b", "c", "d", "e"])), "its 12 rows are not a multiple of 5"),
        (
            refused(open().split_rows("in_proj_weight", [("a", 3), ("b", 8)])),
            "it has 12 rows, and the parts have [3, 8]",
        ),
        (refused(open().split("in_proj", ["same", "same"])), "would both be named"),
        (refused(open().split("qkv", ["a", "b"])), "`qkv` cannot be split: no tensor of the checkpoint matches it"),
        (refused(open().split("(", ["a"])), "`(` is not a regular expression"),
        (refused(open().split("in_proj", ["$1_a"])), "there is no group `1_a` in `in_proj`"),
        (refused(open().fuse(["in_proj_weight", "in_proj_bias"], "x")), "only the numbers of rows may differ"),
        (refused(open().fuse(["in_(proj)_weight", "in_(proj)_gate"], "$1")), "no tensor of the checkpoint matches it"),
        (refused(open().transpose("in_proj_bias")), "its shape is [12], and a matrix in one piece is expected"),
        (refused(open().transpose("conv")), "no tensor of the checkpoint matches it"),
    ] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn transposed_weights_of_gpt2_are_turned_around() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.safetensors");
    // `Conv1D` stores [in, out], with query, key and value side by side.
    let tensors: [(&str, &[usize], f32); 4] = [
        ("attn.c_attn.weight", &[4, 12], 0.0),
        ("attn.c_attn.bias", &[12], 100.0),
        ("attn.c_proj.weight", &[4, 4], 200.0),
        ("attn.c_proj.bias", &[4], 300.0),
    ];
    write(&path, &tensors);
    let turned = || {
        let checkpoint = Checkpoint::open(&path).unwrap().from_pytorch().rename(r"c_proj", "out_proj").unwrap();
        checkpoint.transpose(r"(c_attn|out_proj)\.weight$").unwrap()
    };
    let arena = share_from(&Fused::new(&Device::flex()), &turned().rename("c_attn", "qkv").unwrap()).unwrap();
    let model = load::<Fused>(&arena, &Device::flex()).unwrap().strict().unwrap();
    let (wide, out) =
        ((0..48).map(|at| at as f32).collect::<Vec<_>>(), (200..216).map(|at| at as f32).collect::<Vec<_>>());
    assert_eq!(numbers(model.attn.qkv.weight.val()), wide);
    assert_eq!(numbers(model.attn.out_proj.weight.val()), out);
    // The pipeline has the layout of the file, so the tensors are borrowed.
    let checkpoint = turned().rename("c_attn", "qkv").unwrap().placement(in_file().aligned(4));
    let arena = share_from(&Fused::new(&Device::flex()), &checkpoint).unwrap();
    assert!(arena.tensors().all(|tensor| matches!(tensor.placed, Location::File { .. })));

    // Split by columns.
    let checkpoint = turned().split(r"c_attn\.(weight|bias)", ["query.$1", "key.$1", "value.$1"]).unwrap();
    let arena = share_from(&Attention::new(&Device::flex()), &checkpoint).unwrap();
    let model = load::<Attention>(&arena, &Device::flex()).unwrap();
    let rows = |first: usize| (0..4).flat_map(|row| wide[12 * row + first..][..4].to_vec()).collect::<Vec<_>>();
    assert_eq!(numbers(model.attn.query.weight.val()), rows(0));
    assert_eq!(numbers(model.attn.value.weight.val()), rows(8));
    // Packed with PyTorch's layout.
    let packed = folder.path().join("packed.bpk");
    checkpoint.pack(&packed).unwrap().verify(|_| ()).unwrap();
    let arena =
        share_from(&Attention::new(&Device::flex()), &Checkpoint::open(&packed).unwrap().from_pytorch()).unwrap();
    let model = load::<Attention>(&arena, &Device::flex()).unwrap();
    assert_eq!(numbers(model.attn.key.weight.val()), rows(4));
}

#[derive(Pipeline)]
#[pipeline(init = Norms::new)]
struct Norms {
    ours: LayerNorm,
    own: Own,
}

#[derive(Module, Debug)]
struct Own {
    norm: OwnNorm,
}

/// A user's norm with PyTorch's parameter names.
#[derive(Module, Debug)]
struct OwnNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

pipeline!(Norms, |device| {
    let param = || Param::from_tensor(Tensor::zeros([2], device));
    Norms { ours: LayerNormConfig::new(2).init(device), own: Own { norm: OwnNorm { weight: param(), bias: param() } } }
});

#[test]
fn norms_are_found_under_both_of_their_names() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.safetensors");
    for (weight, bias) in [("gamma", "beta"), ("weight", "bias")] {
        let names = ["ours", "own.norm"].map(|module| (format!("{module}.{weight}"), format!("{module}.{bias}")));
        let [(a, b), (c, d)] = &names;
        write(&path, &[(a, &[2], 1.0), (b, &[2], 3.0), (c, &[2], 5.0), (d, &[2], 7.0)]);
        let checkpoint = Checkpoint::open(&path).unwrap().from_pytorch();
        let arena = share_from(&Norms::new(&Device::flex()), &checkpoint).unwrap();
        let model = load::<Norms>(&arena, &Device::flex()).unwrap();
        assert_eq!(numbers(model.ours.gamma.val()), [1.0, 2.0]);
        assert_eq!(numbers(model.own.norm.weight.val()), [5.0, 6.0]);
        assert_eq!(numbers(model.own.norm.bias.val()), [7.0, 8.0]);
    }
}

#[test]
fn unknown_regex_groups_are_refused_with_a_hint() {
    let open = || Checkpoint::open(case("layers.safetensors")).unwrap();
    let error = open().rename(r"layers\.(\d+)\.", "blk$1_").map(drop).unwrap_err();
    assert!(matches!(&error, CheckpointError::Group { group, .. } if group == "1_"), "{error}");
    assert!(error.to_string().contains("there is no group `1_` in `layers\\.(\\d+)\\.`; write `${1}_`"), "{error}");
    let renamed = open().rename(r"layers\.(\d+)\.", "blk${1}_").unwrap();
    assert_eq!(
        renamed.tensors().map(|tensor| tensor.renamed).collect::<Vec<_>>(),
        ["blk0_w", "blk1_w", "blk2_w", "blk3_w"]
    );
}
