//! Generates the Python source of an exported module: classes with the pipeline's methods, and
//! their stubs.
//!
//! The methods are ordinary Python functions, so they have parameter names, defaults,
//! documentation, signatures and Python's own errors for wrong arguments.

mod stubs;
mod text;
mod types;

use ray_zerocopy::__private::dynamic::{MethodInfo, Schema};

use crate::constructor::NamedConstructor;
pub(crate) use types::annotation;

/// Names, documentation and signatures of a pipeline class.
pub(crate) struct Description {
    class: String,
    doc: String,
    constructors: Vec<Function>,
    methods: Vec<Function>,
}

/// A method or constructor.
struct Function {
    /// A valid Python identifier.
    name: String,
    doc: String,
    exclusive: bool,
    parameters: Vec<Parameter>,
    result: String,
}

struct Parameter {
    name: String,
    annotation: String,
    /// Whether it may be omitted, which passes `None`.
    optional: bool,
}

impl Parameter {
    fn new(name: &str, schema: &Schema) -> Self {
        let optional = match schema {
            Schema::Optional(_) => true,
            Schema::Value { ty } => ty.starts_with("core::option::Option<"),
            _ => false,
        };
        Self { name: text::identifier(name), annotation: annotation(schema, false), optional }
    }
}

/// Makes parameters required that precede a required one.
fn only_trailing_optional(mut parameters: Vec<Parameter>) -> Vec<Parameter> {
    let needed = parameters.iter().rposition(|parameter| !parameter.optional).map_or(0, |last| last + 1);
    for parameter in &mut parameters[..needed] {
        parameter.optional = false;
    }
    parameters
}

impl Function {
    /// Formats the parameter list after `self`: `, rows, scale=None`.
    fn parameters(&self) -> String {
        let parameter =
            |parameter: &Parameter| format!(", {}{}", parameter.name, if parameter.optional { "=None" } else { "" });
        self.parameters.iter().map(parameter).collect()
    }

    /// Formats the arguments as the inside of a tuple: `rows, scale,`.
    fn arguments(&self) -> String {
        self.parameters.iter().map(|parameter| format!("{}, ", parameter.name)).collect()
    }
}

impl Description {
    pub(crate) fn new<P>(
        class: &str,
        doc: &str,
        methods: &[MethodInfo<P>],
        constructors: &[NamedConstructor<P>],
    ) -> Self {
        let method = |method: &MethodInfo<P>| Function {
            name: text::identifier(method.name),
            doc: text::documentation(method.doc),
            exclusive: method.exclusive,
            parameters: only_trailing_optional(
                method.parameters.iter().map(|parameter| Parameter::new(parameter.name, &parameter.schema)).collect(),
            ),
            result: annotation(&method.result, true),
        };
        let constructor = |constructor: &NamedConstructor<P>| Function {
            name: text::identifier(constructor.name),
            doc: String::new(),
            exclusive: false,
            parameters: only_trailing_optional(
                constructor.parameters.iter().map(|&(name, ty)| Parameter::new(name, &Schema::Value { ty })).collect(),
            ),
            result: class.to_owned(),
        };
        Self {
            class: class.to_owned(),
            doc: text::documentation(doc.strip_prefix(' ').unwrap_or(doc).replace("\n ", "\n").as_str()),
            constructors: constructors.iter().map(constructor).collect(),
            methods: methods.iter().map(method).collect(),
        }
    }

    /// Returns the methods that can be called as tasks: those that take `&self`.
    fn tasks(&self) -> impl Iterator<Item = &Function> {
        self.methods.iter().filter(|method| !method.exclusive)
    }

    /// Generates the source of the classes.
    pub(crate) fn module(&self) -> String {
        let Self { class, doc, .. } = self;
        let mut source = format!("class {class}(_Pipeline):\n    {}\n    __slots__ = ()\n", text::literal(doc));
        let named = self.constructors.iter().map(|constructor| format!("{class}.{}", constructor.name));
        let others = named.collect::<Vec<_>>().join(" or ");
        if !self.constructors.iter().any(|constructor| constructor.name == "new") {
            let advice = if others.is_empty() { "ActorWrapper.load".to_owned() } else { others };
            let advice = text::literal(&format!("{class} is constructed with {advice}"));
            source += &format!("\n    def __init__(self, *args, **kwargs):\n        raise TypeError({advice})\n");
        }
        for (index, constructor) in self.constructors.iter().enumerate() {
            let (parameters, arguments) = (constructor.parameters(), constructor.arguments());
            let build = format!("_pipeline_class.build({index}, ({arguments}))");
            source += &match constructor.name.as_str() {
                "new" => format!("\n    def __init__(self{parameters}):\n        self._native = {build}\n"),
                name => {
                    format!("\n    @classmethod\n    def {name}(cls{parameters}):\n        return cls._of({build})\n")
                }
            };
        }
        for (index, method) in self.methods.iter().enumerate() {
            let Function { name, doc, .. } = method;
            let (parameters, arguments, doc) = (method.parameters(), method.arguments(), text::literal(doc));
            source += &format!(
                "\n    def {name}(self{parameters}):\n        {doc}\n        return self._native.call({index}, ({arguments}))\n"
            );
        }
        source += if self.methods.iter().any(|method| method.name == "call") { "\n    __call__ = call\n" } else { "" };
        let about =
            text::literal(&format!("The methods of {class} as Ray tasks, which run in processes that Ray chooses."));
        source += &format!("\n\nclass TaskWrapper(_TaskWrapper):\n    {about}\n");
        for Function { name, doc, .. } in self.tasks() {
            let (doc, name_text) = (text::literal(doc), text::literal(name));
            source += &format!(
                "\n    @property\n    def {name}(self):\n        {doc}\n        return _Task(self, {name_text})\n"
            );
        }
        if self.tasks().any(|method| method.name == "call") {
            source += "\n    def __call__(self, *args, **kwargs):\n        return self.call(*args, **kwargs)\n";
        }
        let names = self.tasks().map(|method| text::literal(&method.name) + ", ").collect::<String>();
        source += &format!(
            "\n\n_class = {class}\n_signatures = {{name: inspect.signature(getattr({class}, name)) for name in ({names})}}\n"
        );
        source
    }
}
