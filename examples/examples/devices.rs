//! Device strings: what each one says on this machine, and what can be borrowed there.

use anyhow::{Result, bail, ensure};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use ray_zerocopy::{ActorWrapper, DeviceError, Error, Pipeline, device};

/// A device is named by a string: `cpu`, `cuda:1`, `wgpu`, `libtorch`. It is asked for before it is used: a string that
/// names no device, a backend that was not compiled in, and a device that is not there are three different errors.
///
/// On `cpu` weights are borrowed where they lie. Every other device has memory of its own, so weights are copied onto
/// it; that is counted, and `strict` refuses it.
#[derive(Parser)]
#[command(after_help = "Try: --features ray-zerocopy/wgpu, if there is a GPU or a software Vulkan.")]
struct Args {
    /// The strings to try.
    #[arg(default_values = ["cpu", "cuda", "cuda:1", "wgpu", "libtorch", "libtorch:cuda:0", "gpu"])]
    devices: Vec<String>,
}

#[derive(Pipeline)]
#[pipeline(init = Model::new)]
struct Model {
    layer: Linear,
}

impl Model {
    fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(256, 256).init(device) }
    }
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    let shared = ActorWrapper::new(&Model::new(&Device::flex()))?;
    for name in &args.devices {
        println!("{name}\n  {}", describe(&shared, name)?);
    }

    // The device of a wrapper is what `load` uses, and `load_on` is for another one.
    let nowhere = shared.clone().device("cuda:1");
    match nowhere.load() {
        Ok(_) => println!("wrapper.device(\"cuda:1\").load() works here"),
        Err(error) => println!("wrapper.device(\"cuda:1\").load(): {error}"),
    }
    nowhere.load_on("cpu")?;
    println!("wrapper.device(\"cuda:1\").load_on(\"cpu\") works");
    Ok(())
}

/// What a device string says, and what a load there copies.
fn describe(shared: &ActorWrapper<Model>, name: &str) -> Result<String> {
    let there = match device(name) {
        Ok(there) => there,
        Err(error) => {
            let text = error.to_string();
            match &error {
                DeviceError::Unknown { found } => ensure!(text.contains(found) && text.contains("write `cpu`")),
                DeviceError::NotCompiled { feature, .. } => ensure!(text.contains(&format!("`{feature}`"))),
                DeviceError::NotFound { device, .. } => ensure!(text.contains(device)),
                other => bail!("an error that this example does not know: {other}"),
            }
            ensure!(name != "cpu", "`cpu` is always there, and yet: {text}");
            return Ok(text);
        }
    };
    let loaded = shared.load_on(name)?;
    let x = Tensor::<2>::ones([1, 256], &there);
    let sum: f32 = loaded.layer.forward(x).sum().into_scalar();
    ensure!(sum.is_finite(), "the forward pass on {name} gives {sum}");

    let copied = loaded.copied().len();
    ensure!(name != "cpu" || copied == 0, "`cpu` copied weights: {:?}", loaded.copied());
    let strict = match shared.clone().strict().load_on(name) {
        Ok(_) => "strict has no objection".to_owned(),
        Err(Error::Load(error)) => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    ensure!((copied == 0) == (strict == "strict has no objection"), "strict and copied() are at odds on {name}");
    Ok(format!("is there; {copied} of 2 weights had to be copied; {strict}"))
}
