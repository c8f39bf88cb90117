//! Weights of fewer bits, and calibration.

use burn::module::Param;
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Distribution, Tensor, TensorData};
use ray_zerocopy::LocalPool;
use ray_zerocopy::jit::{self, Compile, JitTaskWrapper, TracedGraph, Values, WeightFormat};

use crate::model::{Model, WideConfig, inputs, relative, traced, values};

#[test]
fn weights_of_8_bits_give_about_the_same_answers() {
    let (values, expected, model) = values(4, 9);
    let graph = traced(&model);
    let compiled = graph.compile(Compile::int8()).unwrap();
    let names: Vec<_> = compiled.info().steps().map(|step| step.name).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("Linear int8")).count(), 9, "{names:?}");
    assert!(names.contains(&"Linear int8 + gelu".to_owned()), "{names:?}");
    let mut executable = compiled.load("cpu").unwrap();
    assert!(executable.copied().is_empty(), "{:?}", executable.copied());
    let found = executable.run(values.clone()).unwrap().data("output").unwrap();
    let error = relative(&found, &expected);
    assert!((1e-6..0.05).contains(&error), "{error}");
    // Blocks are more exact, and have more scales.
    let blocks = graph.compile(Compile::int8().blocks_of(4).unwrap()).unwrap();
    let of_blocks = blocks.load("cpu").unwrap().run(values.clone()).unwrap().data("output").unwrap();
    assert!(relative(&of_blocks, &expected) < error);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("int8.rzg");
    compiled.save(&path).unwrap();
    let opened = TracedGraph::open(&path).unwrap();
    let pool = LocalPool::builder().workers(1).start().unwrap();
    let tasks = JitTaskWrapper::on(&pool, &opened).unwrap().strict();
    assert_eq!(tasks.run(values).wait().unwrap().data("output").unwrap(), found);
}

#[test]
fn weights_of_16_and_4_bits_give_about_the_same_answers() {
    let (values, expected, model) = values(4, 9);
    let graph = traced(&model);
    for (options, name, least, most) in
        [(Compile::bf16(), "Linear bf16", 1e-5, 3e-3), (Compile::int4(), "Linear int4", 1e-3, 0.1)]
    {
        let compiled = graph.compile(options).unwrap();
        assert_eq!(compiled.info().steps().filter(|step| step.name.starts_with(name)).count(), 9);
        let mut executable = compiled.load("cpu").unwrap();
        assert!(executable.copied().is_empty(), "{:?}", executable.copied());
        let error = relative(&executable.run(values.clone()).unwrap().data("output").unwrap(), &expected);
        assert!((least..most).contains(&error), "{name}: {error}");
    }
}

#[test]
fn layers_of_bf16_are_computed_on_their_weights_as_they_are() {
    let device = Device::flex();
    let mut layers = WideConfig { width: 40, layers: 2 }.init(&device);
    let cast = |param: Param<Tensor<2>>| Param::from_tensor(param.val().cast(DType::BF16));
    for layer in &mut layers.layers {
        layer.weight = cast(layer.weight.clone());
        layer.bias = layer.bias.take().map(|bias| Param::from_tensor(bias.val().cast(DType::BF16)));
    }
    let x = Tensor::<2>::random([5, 40], Distribution::Default, &device).cast(DType::BF16);
    let graph = jit::trace(&layers)
        .input("x", x.clone())
        .forward(|layers, inputs| {
            let x = inputs.float::<2>("x")?;
            Ok(layers.layers.iter().fold(x, |x, layer| relu(layer.forward(x.clone())) + x))
        })
        .unwrap();
    let compiled = graph.compile(Compile::f32()).unwrap();
    let names: Vec<_> = compiled.info().steps().map(|step| step.name).collect();
    assert_eq!(names, ["Linear bf16 + relu + residual"; 2], "{names:?}");
    let [found, expected] = [&compiled, &graph].map(|graph| {
        let output = graph.load("cpu").unwrap().run([("x", x.clone())]).unwrap().data("output").unwrap();
        assert_eq!(output.dtype(), DType::BF16);
        output
    });
    // burn rounds after each operation, a compiled graph once for each layer.
    let error = relative(&found, &expected);
    assert!(error < 0.01, "{error}");
}

#[test]
fn arena_of_8_bits_is_a_quarter() {
    let wide = |format| {
        let device = Device::flex();
        let layers = WideConfig { width: 512, layers: 3 }.init(&device);
        let graph = jit::trace(&layers).input("x", Tensor::<2>::ones([2, 512], &device)).forward(|layers, inputs| {
            Ok(layers.layers.iter().fold(inputs.float::<2>("x")?, |x, layer| relu(layer.forward(x))))
        });
        graph.unwrap().compile(format).unwrap().arena().size_bytes() as f64
    };
    let ratio = wide(Compile::int8()) / wide(Compile::f32());
    assert!(ratio < 0.27, "{ratio}");
}

#[test]
fn calibration_keeps_the_bound() {
    let model = Model::new(&Device::flex());
    let graph = traced(&model);
    let samples: Vec<Values> = [(3, 5), (2, 9), (1, 20)]
        .into_iter()
        .map(|(batch, length)| {
            let (x, padding) = inputs(batch, length);
            Values::new().with("x", x).with("padding", padding)
        })
        .collect();
    let error = |options: Compile| {
        let (mut fast, mut plain) = (graph.compile(options).unwrap().load("cpu").unwrap(), graph.load("cpu").unwrap());
        let pairs = samples.iter().map(|sample| {
            let [found, expected] = [&mut fast, &mut plain].map(|graph| graph.run(sample.clone()).unwrap());
            (found.data("output").unwrap(), expected.data("output").unwrap())
        });
        let all: Vec<_> = pairs.collect();
        let flat = |of: &dyn Fn(&(TensorData, TensorData)) -> Vec<f32>| {
            let elements: Vec<f32> = all.iter().flat_map(of).collect();
            TensorData::new(elements.clone(), [elements.len()])
        };
        relative(&flat(&|pair| pair.0.iter::<f32>().collect()), &flat(&|pair| pair.1.iter::<f32>().collect()))
    };
    let most = error(Compile::int8());
    let loose = graph.calibrate(&Compile::int8(), samples.clone(), 2.0 * most, |_, _| ()).unwrap();
    assert_eq!(loose.layers().len(), 8, "the tied weight once");
    assert!(loose.layers().iter().all(|layer| layer.format != WeightFormat::F32));
    assert!((loose.error() / most - 1.0).abs() < 0.01, "{} {most}", loose.error());
    let text = loose.to_string();
    assert!(text.starts_with("8 of 8 layers in int8") && text.contains("attention.query.weight"), "{text}");

    println!("{loose}");
    let mut seen = Vec::new();
    let tell = |done, all| seen.push((done, all));
    let tight = graph.calibrate(&Compile::int8(), samples.clone(), 0.7 * most, tell).unwrap();
    assert!(seen.iter().enumerate().all(|(at, (done, all))| *done == at + 1 && done <= all), "{seen:?}");
    assert!(seen.len() > 9, "each of 8 layers alone, all of them, and a bisection: {seen:?}");
    let kept: Vec<_> = tight.options().kept().map(str::to_owned).collect();
    assert!(!kept.is_empty() && kept.len() < 8, "{tight}");
    assert!(tight.error() <= 0.7 * most, "{tight}");
    // Those that stay are those with the largest errors.
    let formats: Vec<_> = tight.layers().iter().map(|layer| layer.format == WeightFormat::F32).collect();
    assert!(formats.is_sorted_by(|one, other| one >= other), "{tight}");
    assert!((error(tight.options()) / tight.error() - 1.0).abs() < 0.01);

    let refused = |options: &Compile, samples: Vec<Values>, most| {
        graph.calibrate(options, samples, most, |_, _| ()).unwrap_err().to_string()
    };
    let text = refused(&Compile::int8(), samples.clone(), 1e-9);
    assert!(text.contains("may change by 1.0e-9") && text.contains("in int8 they change by"), "{text}");
    assert!(refused(&Compile::int8(), Vec::new(), 0.1).contains("no samples"));
    assert!(refused(&Compile::f32(), samples.clone(), 0.1).contains("no layer to choose"));
    let wrong = vec![Values::new().with("y", inputs(1, 1).0)];
    assert!(refused(&Compile::int8(), wrong, 0.1).contains("`y`"));
    let compiled = graph.compile(tight.options()).unwrap();
    let again = compiled.calibrate(&Compile::int8(), samples, 0.1, |_, _| ()).unwrap_err();
    assert!(again.to_string().contains("compiled already"));
}

#[test]
fn outputs_that_cannot_be_compared() {
    let device = Device::flex();
    let layers = WideConfig { width: 16, layers: 1 }.init(&device);
    let x = Tensor::<2>::random([6, 16], Distribution::Default, &device);
    let samples = || [Values::new().with("x", x.clone())];
    let labels = jit::trace(&layers)
        .input("x", x.clone())
        .forward(|layers, inputs| Ok(layers.layers[0].forward(inputs.float::<2>("x")?).argmax(1)))
        .unwrap();
    let error = labels.calibrate(&Compile::int8(), samples(), 0.5, |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("no floating-point number to compare"), "{error}");
    // Infinities that do not change are no error.
    let masked = jit::trace(&layers)
        .input("x", x.clone())
        .forward(|layers, inputs| {
            let x = inputs.float::<2>("x")?;
            Ok(layers.layers[0].forward(x.clone()).mask_fill(x.greater_elem(0.5), f32::NEG_INFINITY))
        })
        .unwrap();
    let calibration = masked.calibrate(&Compile::int8(), samples(), 0.5, |_, _| ()).unwrap();
    assert!(calibration.error() > 0.0 && calibration.error() < 0.05, "{calibration}");
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let graph = traced(&Model::new(&Device::flex()));
    let error = graph.compile(Compile::int8().keep("wide.wait")).unwrap_err().to_string();
    assert!(error.contains("`wide.wait` was given") && error.contains("the path of a weight"), "{error}");
    let kept = graph.compile(Compile::int8().keep("wide.weight")).unwrap();
    let names: Vec<_> = kept.info().steps().map(|step| step.name).collect();
    assert!(names.contains(&"Linear + gelu".to_owned()), "{names:?}");
    for rows in [0, 3, 6, 1 << 20] {
        let error = Compile::int8().blocks_of(rows).unwrap_err().to_string();
        assert!(error.contains(&format!("blocks of {rows} rows")) && error.contains("multiple of 4"), "{error}");
    }
    assert!(Compile::f32().blocks_of(4).unwrap_err().to_string().contains("whose weights have blocks"));
}
