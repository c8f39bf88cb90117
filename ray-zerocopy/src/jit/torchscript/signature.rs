//! Signature of a TorchScript module: its methods and arguments, readable without LibTorch.

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::error::graph::ReplayError;
use crate::error::script::ScriptError;
use crate::tensor::value::{Values, listed};

const FORMAT: u32 = 1;
/// Maximum size of a signature in bytes.
const MOST_BYTES: usize = 16 << 20;

/// A method of a TorchScript module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScriptMethod {
    /// Name: `forward`.
    pub name: String,
    /// Arguments, without `self`.
    pub arguments: Vec<ScriptArgument>,
    /// Return type in TorchScript syntax: `Tensor`, `Tuple[Tensor, Tensor]`.
    pub returns: String,
}

/// An argument of a method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScriptArgument {
    /// Name.
    pub name: String,
    /// Type in TorchScript syntax: `Tensor`, `Optional[int]`, `List[Tensor]`.
    #[serde(rename = "kind")]
    pub ty: String,
    /// Whether it has a default value.
    #[serde(rename = "default")]
    pub has_default: bool,
}

impl ScriptArgument {
    /// Returns `true` if a call may omit the argument.
    pub fn is_optional(&self) -> bool {
        self.has_default || self.ty.starts_with("Optional[")
    }

    /// Returns `true` if the argument is a single tensor or number, which is passed under its own
    /// name.
    fn is_single(&self) -> bool {
        !self.ty.contains('[') || self.ty.starts_with("Optional[") && self.ty.matches('[').count() == 1
    }

    fn is_number(&self) -> bool {
        let kind = self.ty.strip_prefix("Optional[").and_then(|kind| kind.strip_suffix(']')).unwrap_or(&self.ty);
        matches!(kind, "int" | "float" | "bool" | "number" | "Scalar")
    }
}

/// Signature of a module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ModuleSignature {
    format: u32,
    /// Name of its file.
    pub origin: String,
    pub methods: Vec<ScriptMethod>,
    /// Tensors that each worker has its own copy of: path and size in bytes.
    pub own: Vec<(String, u64)>,
}

impl ModuleSignature {
    #[cfg(feature = "torchscript")]
    pub(super) fn new(origin: String, methods: Vec<ScriptMethod>, own: Vec<(String, u64)>) -> Self {
        Self { format: FORMAT, origin, methods, own }
    }

    /// Decodes and validates a signature.
    ///
    /// # Errors
    /// If it has another format version.
    pub(in crate::jit) fn read(bytes: &[u8]) -> Result<Self, ScriptError> {
        let corrupted = |reason: String| ScriptError::Corrupted { reason };
        if bytes.len() > MOST_BYTES {
            return Err(corrupted(format!("its signature has {} bytes, and the maximum is {MOST_BYTES}", bytes.len())));
        }
        let code: Self = codec::decode(bytes).map_err(corrupted)?;
        match code.format {
            FORMAT => Ok(code),
            found => Err(corrupted(format!("it has format {found}, and this program reads {FORMAT}"))),
        }
    }

    /// Finds a method by name.
    ///
    /// # Errors
    /// If there is no such method. The error lists all methods.
    pub(in crate::jit) fn method(&self, name: &str) -> Result<&ScriptMethod, ReplayError> {
        self.methods.iter().find(|method| method.name == name).ok_or_else(|| ReplayError::Method {
            name: name.to_owned(),
            found: listed(self.methods.iter().map(|method| method.name.as_str())),
        })
    }

    /// Checks the inputs of a call: each belongs to an argument, and none is missing. Only the
    /// module itself can check their shapes.
    ///
    /// # Errors
    /// Names the input.
    pub(in crate::jit) fn check(&self, method: &str, inputs: &Values) -> Result<(), ReplayError> {
        let method = self.method(method)?;
        let inputs_error = |name: &str, reason: &str| ReplayError::Inputs {
            name: name.to_owned(),
            reason: reason.to_owned(),
            expected: listed(method.arguments.iter().map(|argument| argument.name.as_str())),
        };
        for (name, value) in inputs.iter() {
            let matches = |argument: &&ScriptArgument| match name.strip_prefix(argument.name.as_str()) {
                Some("") => true,
                Some(rest) => rest.starts_with('.') && !argument.is_single(),
                None => false,
            };
            let Some(argument) = method.arguments.iter().find(matches) else {
                return Err(inputs_error(name, "is not one of the module's"));
            };
            if argument.is_number() && value.shape().iter().product::<usize>() != 1 {
                let expected = format!("one {}", argument.ty);
                return Err(ReplayError::Input { name: name.to_owned(), expected, found: value.to_string() });
            }
        }
        let missing = |argument: &&ScriptArgument| {
            !argument.is_optional() && argument.is_single() && inputs.get(&argument.name).is_none()
        };
        match method.arguments.iter().find(missing) {
            Some(argument) => Err(inputs_error(&argument.name, "is missing")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, Tensor};

    use super::FORMAT;
    use super::ModuleSignature;
    use super::ScriptArgument;
    use super::ScriptMethod;
    use crate::tensor::value::Values;

    fn code() -> ModuleSignature {
        let argument = |(name, kind, default): (&str, &str, bool)| ScriptArgument {
            name: name.to_owned(),
            ty: kind.to_owned(),
            has_default: default,
        };
        let arguments = [
            ("x", "Tensor", false),
            ("rate", "int", false),
            ("mask", "Optional[Tensor]", false),
            ("scale", "float", true),
            ("state", "Tuple[Tensor, Tensor]", false),
        ];
        let arguments = arguments.map(argument).to_vec();
        let method = ScriptMethod { name: "forward".to_owned(), arguments, returns: "Tensor".to_owned() };
        ModuleSignature { format: FORMAT, origin: "m.pt".to_owned(), methods: vec![method], own: Vec::new() }
    }

    fn rows(len: usize) -> Tensor<1> {
        Tensor::ones([len], &Device::flex())
    }

    #[test]
    fn inputs_have_a_place_and_none_is_missing() {
        let rate = Tensor::<1, Int>::from_ints([16_000], &Device::flex());
        let least = || Values::new().with("x", rows(3)).with("rate", rate.clone());
        let check = |inputs: Values| code().check("forward", &inputs).map_err(|error| error.to_string());
        assert_eq!(check(least()), Ok(()));
        assert_eq!(check(least().with("mask", rows(2)).with("state.0", rows(1)).with("state.1", rows(9))), Ok(()));
        let takes = "the graph takes `x`, `rate`, `mask`, `scale`, `state`";
        let error = |inputs| check(inputs).unwrap_err();
        assert_eq!(error(Values::new().with("rate", rate.clone())), format!("input `x` is missing; {takes}"));
        let other = format!("is not one of the module's; {takes}");
        assert_eq!(error(least().with("y", rows(1))), format!("input `y` {other}"));
        assert_eq!(error(least().with("x.0", rows(1))), format!("input `x.0` {other}"));
        assert_eq!(
            error(least().with("scale", rows(2))),
            "input `scale` is F32 of shape [2], and the graph takes one float"
        );
        let error = code().check("backward", &least()).unwrap_err();
        assert_eq!(error.to_string(), "there is no method `backward`; there is `forward`");
    }

    #[test]
    fn the_seed_of_the_fuzzer_is_a_module() {
        // In the repository, a link to `fuzz/corpus/module/valid`.
        let seed = format!("{}/tests/seeds/module", std::env::var("CARGO_MANIFEST_DIR").unwrap());
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&seed, crate::codec::encode(&code()).unwrap()).unwrap();
        }
        assert_eq!(
            ModuleSignature::read(&std::fs::read(seed).unwrap()).unwrap().methods,
            code().methods,
            "BLESS=1 writes it"
        );
    }

    #[test]
    fn another_format_is_not_read() {
        let other = ModuleSignature { format: 2, ..code() };
        let error = ModuleSignature::read(&crate::codec::encode(&other).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "the module is corrupted: it has format 2, and this program reads 1");
        assert_eq!(ModuleSignature::read(&crate::codec::encode(&code()).unwrap()).unwrap().methods, code().methods);
        assert!(ModuleSignature::read(b"").is_err() && ModuleSignature::read(&[0xff; 40]).is_err());
    }
}
