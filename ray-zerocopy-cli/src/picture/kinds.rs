//! Kinds of operations, and their colours.

/// A kind of operation, or a port of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Port,
    Product,
    Convolution,
    Attention,
    Norm,
    Activation,
    Elementwise,
    Gather,
    Reduction,
    View,
}

impl Kind {
    pub(crate) const ALL: [Self; 10] = [
        Self::Port,
        Self::Product,
        Self::Convolution,
        Self::Attention,
        Self::Norm,
        Self::Activation,
        Self::Elementwise,
        Self::Gather,
        Self::Reduction,
        Self::View,
    ];

    /// Returns the kind of an operation by its name, such as `Linear + gelu`.
    pub(crate) fn of(name: &str, computes: bool) -> Self {
        let name = name.split(' ').next().unwrap_or_default();
        let is = |part: &str| name.contains(part);
        match name {
            _ if !computes => Self::View,
            _ if is("Attention") => Self::Attention,
            _ if is("Norm") => Self::Norm,
            _ if is("Conv") || is("Fold") => Self::Convolution,
            _ if is("Pool") || is("Interpolate") => Self::Reduction,
            "Linear" | "Matmul" | "Cross" | "Dot" => Self::Product,
            "Embedding" | "Select" | "Gather" | "Scatter" | "MaskWhere" | "MaskFill" | "SelectAssign" => Self::Gather,
            "Cat" | "RepeatDim" | "Flip" | "SliceAssign" | "Unfold" | "Sort" => Self::View,
            _ if [
                "Relu", "Gelu", "Silu", "Sigmoid", "Tanh", "Softmax", "Softmin", "Softplus", "Mish", "Glu", "Elu",
            ]
            .iter()
            .any(|activation| is(activation)) =>
            {
                Self::Activation
            }
            _ if ["Sum", "Mean", "Prod", "Max", "Min", "Arg", "Any", "All", "Cum", "TopK"]
                .iter()
                .any(|reduction| name.starts_with(reduction))
                && !["MaxPair", "MinPair"].contains(&name) =>
            {
                Self::Reduction
            }
            _ => Self::Elementwise,
        }
    }

    /// Name in the legend.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Port => "input or output",
            Self::Product => "matrix product",
            Self::Convolution => "convolution",
            Self::Attention => "attention",
            Self::Norm => "normalisation",
            Self::Activation => "activation",
            Self::Elementwise => "element-wise",
            Self::Gather => "embedding or selection",
            Self::Reduction => "reduction or pooling",
            Self::View => "view or rearrangement",
        }
    }

    /// Class in style sheets.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Product => "product",
            Self::Convolution => "convolution",
            Self::Attention => "attention",
            Self::Norm => "norm",
            Self::Activation => "activation",
            Self::Elementwise => "elementwise",
            Self::Gather => "gather",
            Self::Reduction => "reduction",
            Self::View => "view",
        }
    }

    /// Fill and line on a light background, and on a dark one.
    fn colors(self) -> [&'static str; 4] {
        match self {
            Self::Port => ["#ffffff", "#4b5563", "#111827", "#9ca3af"],
            Self::Product => ["#dbeafe", "#2563eb", "#1e3a5f", "#60a5fa"],
            Self::Convolution => ["#d5f0ee", "#0d9488", "#134e4a", "#2dd4bf"],
            Self::Attention => ["#fde4cf", "#d9660b", "#5c2d0c", "#fb923c"],
            Self::Norm => ["#e9e3fc", "#7c3aed", "#3b2a6b", "#a78bfa"],
            Self::Activation => ["#fbdfe7", "#db2777", "#5c1a3a", "#f472b6"],
            Self::Elementwise => ["#f0f1f3", "#6b7280", "#2b323d", "#9ca3af"],
            Self::Gather => ["#dcf3dd", "#15803d", "#14401f", "#4ade80"],
            Self::Reduction => ["#fbf0c4", "#a16207", "#4a3a08", "#facc15"],
            Self::View => ["#fafafa", "#b6bcc6", "#1b212b", "#4b5563"],
        }
    }
}

/// Style rules of all kinds: `.kind rect`, in light and dark mode.
pub(crate) fn style() -> String {
    let rules = |light: bool| {
        let rule = |kind: Kind| {
            let [fill, line, dark_fill, dark_line] = kind.colors();
            let (fill, line) = if light { (fill, line) } else { (dark_fill, dark_line) };
            format!(".{0} rect {{ fill: {fill}; stroke: {line}; }}\n", kind.class())
        };
        Kind::ALL.map(rule).concat()
    };
    format!("{}@media (prefers-color-scheme: dark) {{\n{}}}\n", rules(true), rules(false))
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn kinds_are_found_by_name() {
        let is = |name, kind| assert_eq!(Kind::of(name, true), kind, "{name}");
        is("Linear + gelu + residual", Kind::Product);
        is("Conv1d", Kind::Convolution);
        is("LayerNorm", Kind::Norm);
        is("MaxPool2d", Kind::Reduction);
        is("MeanDim", Kind::Reduction);
        is("Softmax", Kind::Activation);
        is("AddScalar", Kind::Elementwise);
        is("MaxPair", Kind::Elementwise);
        is("Embedding", Kind::Gather);
        assert_eq!(Kind::of("Reshape", false), Kind::View);
    }
}
