//! Which inputs and outputs of a graph have rows: those whose first dimension is the symbol of the
//! batch.

use super::code::{GraphCode, Port};
use super::symbolic::expr::SymExpr;
use crate::error::graph::ReplayError;

/// Returns whether an input has rows.
///
/// # Errors
/// If the graph has no symbol for the number of rows, or an output has no rows.
pub(in crate::jit) fn has_rows(code: &GraphCode, input: &str) -> Result<bool, ReplayError> {
    let symbol = symbol(code)?;
    let port = code.inputs.iter().find(|port| port.name == input);
    Ok(port.is_some_and(|port| port.shape.first().and_then(SymExpr::as_symbol) == Some(symbol)))
}

/// The symbol of the number of rows: the first dimension of the first input that begins with one.
fn symbol(code: &GraphCode) -> Result<usize, ReplayError> {
    let refused = |reason: String| ReplayError::NotBatchable { reason };
    let name = |symbol: usize| code.symbols.get(symbol).map_or("?", |symbol| symbol.name.as_str());
    let symbol = code.inputs.iter().find_map(|port| port.shape.first()?.as_symbol()).ok_or_else(|| {
        refused(
            "no input has a symbol as its first dimension; trace with `.symbol(\"batch\", [(\"input\", 0)])`"
                .to_owned(),
        )
    })?;
    let elsewhere = |port: &Port| port.shape.iter().skip(1).any(|size| mentions(size, symbol));
    let describe = |port: &Port| {
        let names: Vec<_> = code.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
        let shape: Vec<_> = port.shape.iter().map(|size| size.named(&names).to_string()).collect();
        format!("`{}` has the shape [{}]", port.name, shape.join(", "))
    };
    if let Some(port) = code.inputs.iter().find(|port| elsewhere(port)) {
        return Err(refused(format!(
            "input {}, where `{}` is not only the first dimension",
            describe(port),
            name(symbol)
        )));
    }
    let is_row_by_row =
        |port: &Port| port.shape.first().and_then(SymExpr::as_symbol) == Some(symbol) && !elsewhere(port);
    match code.outputs.iter().find(|port| !is_row_by_row(port)) {
        Some(port) => {
            Err(refused(format!("output {}, and its first dimension has to be `{}`", describe(port), name(symbol))))
        }
        None => Ok(symbol),
    }
}

fn mentions(size: &SymExpr, symbol: usize) -> bool {
    size.0.iter().any(|term| term.symbols.iter().any(|&found| usize::from(found) == symbol))
}
