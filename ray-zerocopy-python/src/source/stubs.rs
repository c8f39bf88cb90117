//! The stubs of a module, for type checkers and editors.

use super::{Description, Function};

/// What is the same in every module.
const HEAD: &str = r#"# Made by `stubs()` of the module itself: do not edit.
from collections.abc import Sequence
from os import PathLike
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from ray import ObjectRef
"#;

const TAIL: &str = r#"
class PanicError(RuntimeError):
    """A method panicked, in Rust. The process lives on."""
    method: str
    message: str
    pid: int
    host: str

class PipelineError(RuntimeError):
    """A method or a constructor gave an error, a ``Result::Err`` in Rust."""
    error: Any

def stubs() -> str: ...
"#;

impl Function {
    /// `, rows: ArrayLike, scale: float | None = None`, and each may be a reference to such a value if `referable`.
    fn typed(&self, referable: bool) -> String {
        let parameter = |parameter: &super::Parameter| {
            let super::Parameter { name, annotation, optional } = parameter;
            let reference = if referable { format!(" | ObjectRef[{annotation}]") } else { String::new() };
            format!(", {name}: {annotation}{reference}{}", if *optional { " = None" } else { "" })
        };
        self.parameters.iter().map(parameter).collect()
    }
}

/// Documentation as a block behind a line that ends with `:`, or `...` if there is none.
fn body(doc: &str, indent: &str) -> String {
    if doc.is_empty() {
        return " ...\n".to_owned();
    }
    let doc = doc.replace('\\', "\\\\").replace("\"\"\"", "\\\"\\\"\\\"");
    let mut lines = doc.lines();
    let mut text = format!("\n{indent}\"\"\"{}", lines.next().unwrap_or_default());
    for line in lines {
        text += "\n";
        if !line.is_empty() {
            text += &format!("{indent}{line}");
        }
    }
    // A quote at the end would end the text too early.
    if text.ends_with('"') {
        text.push(' ');
    }
    text + "\"\"\"\n"
}

impl Description {
    /// The text of the module's `.pyi`.
    pub(crate) fn stubs(&self) -> String {
        let class = &self.class;
        let mut text = format!("{HEAD}\n@final\nclass {class}:");
        text += &body(&self.doc, "    ").replace(" ...\n", "\n");
        for constructor in &self.constructors {
            let typed = constructor.typed(false);
            text += &match constructor.name.as_str() {
                "new" => format!("    def __init__(self{typed}) -> None: ...\n"),
                name => format!("    @classmethod\n    def {name}(cls{typed}) -> {class}: ...\n"),
            };
        }
        for method in &self.methods {
            let Function { name, doc, result, .. } = method;
            let typed = method.typed(false);
            text += &format!("    def {name}(self{typed}) -> {result}:{}", body(doc, "        "));
            if name == "call" {
                text += &format!("    def __call__(self{typed}) -> {result}: ...\n");
            }
        }
        text += &format!(
            "\ndef traffic(pipeline: {class}) -> dict[str, int]: ...\n\ndef copied(pipeline: {class}) -> int: ...\n"
        );
        text += &format!(
            "\nclass ActorWrapper:\n    def __init__(\n        self, pipeline: {class}, device: str = \"cpu\", *, strict: bool = \
             False, spill: bool = False\n    ) -> None: ...\n    def load(self, device: str | None = None) -> {class}: ...\n"
        );
        for method in self.tasks() {
            let Function { name, result, .. } = method;
            let referable = method.typed(true);
            text += &format!(
                "\n@final\nclass _Task_{name}:\n    def __call__(self{referable}) -> {result}: ...\n    def remote(self{referable}) -> \
                 ObjectRef[{result}]: ...\n"
            );
        }
        text += &format!(
            "\nclass TaskWrapper:\n    def __init__(\n        self,\n        pipeline: {class},\n        device: str = \"cpu\",\n        \
             *,\n        strict: bool = False,\n        spill: bool = False,\n        **options: Any,\n    ) -> None: ...\n    def \
             load(self, device: str | None = None) -> {class}: ...\n    def options(self, **options: Any) -> TaskWrapper: ...\n"
        );
        for method in self.tasks() {
            let Function { name, result, .. } = method;
            text += &format!("    @property\n    def {name}(self) -> _Task_{name}: ...\n");
            if name == "call" {
                text += &format!("    def __call__(self{}) -> {result}: ...\n", method.typed(true));
            }
        }
        text + TAIL
    }
}
