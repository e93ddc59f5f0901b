// SPDX-License-Identifier: Apache-2.0
//! The functions and macros that an expression may use.

use cel::common::ast::{ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue};
use cel::parser::{Macro, MacroExprHelper, ParseError};
use cel::{DeclarationError, Env, extensions};

/// The environment of DRA expressions. What cannot be declared is missing in it, and an expression that uses it is not evaluated.
pub(super) fn environment() -> Env {
    let mut env = Env::stdlib();
    let declared = [
        env.add_extension(extensions::strings),
        env.add_extension(extensions::lists),
        env.add_extension(extensions::math),
        env.add_extension(super::quantity::extension),
        env.add_extension(super::version::extension),
        env.add_extension(super::text::extension),
        env.add_macro(Macro::receiver("bind", 3, bind)),
    ];
    debug_assert_eq!(declared.into_iter().collect::<Result<(), DeclarationError>>(), Ok(()));
    env
}

/// `cel.bind(name, value, expression)`: the expression with the name, for example of the attributes of one domain.
#[expect(clippy::unnecessary_wraps, reason = "the type of an expander of macros")]
fn bind(
    helper: &mut MacroExprHelper<'_>,
    target: &mut Option<IdedExpr>,
    args: &mut Vec<IdedExpr>,
) -> Result<Option<IdedExpr>, ParseError> {
    let is_ours = target.as_ref().is_some_and(|target| matches!(&target.expr, Expr::Ident(name) if name == "cel"));
    let [Expr::Ident(name), _, _] = args.iter().map(|arg| &arg.expr).collect::<Vec<_>>()[..] else { return Ok(None) };
    if !is_ours {
        return Ok(None);
    }
    let name = name.clone();
    let (Some(result), Some(value)) = (args.pop(), args.pop()) else { return Ok(None) };
    let bound = ComprehensionExpr {
        iter_range: helper.next_expr(Expr::List(ListExpr::new(Vec::new()))),
        iter_var: "#unused".to_owned(),
        iter_var2: None,
        accu_var: name.clone(),
        accu_init: value,
        loop_cond: helper.next_expr(Expr::Literal(LiteralValue::Boolean(false.into()))),
        loop_step: helper.next_expr(Expr::Ident(name)),
        result,
    };
    Ok(Some(helper.next_expr(Expr::Comprehension(Box::new(bound)))))
}
