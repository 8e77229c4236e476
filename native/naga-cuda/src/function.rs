//! Functions: statements.

use std::collections::HashMap;
use std::fmt::Write as _;

use naga::valid::FunctionInfo;
use naga::{
    AtomicFunction, Barrier, Block, CollectiveOperation, Direction, Expression, Function,
    GatherMode, Handle, LocalVariable, Statement, SubgroupOperation, SwitchValue, TypeInner,
};

use crate::types::plain;
use crate::writer::Writer;
use crate::{Result, unsupported};

/// A function while it is written.
pub(crate) struct Body<'a> {
    pub(crate) writer: &'a Writer<'a>,
    pub(crate) function: &'a Function,
    pub(crate) info: &'a FunctionInfo,
    /// Expressions that are variables of the text.
    pub(crate) named: HashMap<Handle<Expression>, String>,
    out: String,
    depth: usize,
    /// Labels of the loops around, and how many there were.
    labels: Vec<String>,
    loops: usize,
    /// Declarations of the loop bodies around, which their `continuing` may use.
    declared: Vec<Vec<Declared>>,
}

struct Declared {
    ty: String,
    name: String,
}

impl Writer<'_> {
    pub(crate) fn function_name(&self, handle: Handle<Function>) -> String {
        let name = self.module.functions[handle].name.as_deref();
        format!("{}_f{}", plain(name, "function"), handle.index())
    }
}

impl<'a> Body<'a> {
    pub(crate) fn new(
        writer: &'a Writer<'a>,
        function: &'a Function,
        info: &'a FunctionInfo,
    ) -> Self {
        Body {
            writer,
            function,
            info,
            named: HashMap::new(),
            out: String::new(),
            depth: 2,
            labels: Vec::new(),
            loops: 0,
            declared: Vec::new(),
        }
    }

    /// The function as a member of the program.
    pub(crate) fn member(mut self, name: &str) -> Result<String> {
        let result = match &self.function.result {
            Some(result) => self.writer.type_name(result.ty)?,
            None => "void".to_string(),
        };
        let mut parameters = Vec::new();
        for (i, argument) in self.function.arguments.iter().enumerate() {
            let ty = self.writer.type_name(argument.ty)?;
            parameters.push(format!("{ty} {}", self.argument_name(i as u32)));
        }
        let parameters = parameters.join(", ");
        for (handle, variable) in self.function.local_variables.iter() {
            let ty = self.writer.type_name(variable.ty)?;
            let value = match variable.init {
                Some(value) => self.expression(value)?,
                None => format!("{ty}{{}}"),
            };
            let name = self.local_name(handle);
            self.line(format_args!("{ty} {name} = {value};"))?;
        }
        self.block(&self.function.body)?;
        Ok(format!(
            "    WGSL_FN {result} {name}({parameters}) {{\n{}    }}\n",
            self.out
        ))
    }

    pub(crate) fn argument_name(&self, index: u32) -> String {
        let name = (self.function.arguments)
            .get(index as usize)
            .and_then(|a| a.name.as_deref());
        format!("{}_a{index}", plain(name, "argument"))
    }

    pub(crate) fn local_name(&self, handle: Handle<LocalVariable>) -> String {
        let name = self.function.local_variables[handle].name.as_deref();
        format!("{}_l{}", plain(name, "local"), handle.index())
    }

    pub(crate) fn inner(&self, handle: Handle<Expression>) -> &'a TypeInner {
        self.info[handle].ty.inner_with(&self.writer.module.types)
    }

    /// Name of an expression's type.
    pub(crate) fn expression_type(&self, handle: Handle<Expression>) -> Result<String> {
        match self.info[handle].ty.handle() {
            Some(ty) => self.writer.type_name(ty),
            None => self.writer.inner_name(self.inner(handle)),
        }
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) -> Result<()> {
        for _ in 0..self.depth {
            self.out.push_str("    ");
        }
        writeln!(self.out, "{text}")?;
        Ok(())
    }

    fn block(&mut self, block: &Block) -> Result<()> {
        for statement in block.iter() {
            self.statement(statement)?;
        }
        Ok(())
    }

    /// A block that ends what it declares.
    fn inner_block(&mut self, block: &Block) -> Result<()> {
        self.depth += 1;
        self.block(block)?;
        self.depth -= 1;
        Ok(())
    }

    /// Makes an expression a variable.
    fn name(&mut self, handle: Handle<Expression>, value: &str) -> Result<()> {
        let ty = self.expression_type(handle)?;
        let given = self
            .function
            .named_expressions
            .get(&handle)
            .map(String::as_str);
        let name = format!("{}_e{}", plain(given, ""), handle.index());
        self.line(format_args!("const {ty} {name} = {value};"))?;
        if let Some(declared) = self.declared.last_mut() {
            declared.push(Declared {
                ty,
                name: name.clone(),
            });
        }
        self.named.insert(handle, name);
        Ok(())
    }

    fn emit(&mut self, handle: Handle<Expression>) -> Result<()> {
        let is_pointer = self.inner(handle).pointer_space().is_some();
        // What reads memory or works across a warp happens here, once.
        let read = matches!(
            self.function.expressions[handle],
            Expression::Load { .. }
                | Expression::CooperativeLoad { .. }
                | Expression::CooperativeMultiplyAdd { .. }
        );
        let used = self.info[handle].ref_count;
        let given = self.function.named_expressions.contains_key(&handle);
        if !is_pointer && used > 0 && (read || given || used > 1) {
            let value = self.expression(handle)?;
            self.name(handle, &value)?;
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Statement) -> Result<()> {
        match statement {
            Statement::Emit(range) => {
                for handle in range.clone() {
                    self.emit(handle)?;
                }
            }
            Statement::Block(block) => {
                self.line(format_args!("{{"))?;
                self.inner_block(block)?;
                self.line(format_args!("}}"))?;
            }
            Statement::If {
                condition,
                accept,
                reject,
            } => {
                let condition = self.expression(*condition)?;
                self.line(format_args!("if ({condition}) {{"))?;
                self.inner_block(accept)?;
                if !reject.is_empty() {
                    self.line(format_args!("}} else {{"))?;
                    self.inner_block(reject)?;
                }
                self.line(format_args!("}}"))?;
            }
            Statement::Switch { selector, cases } => {
                let selector = self.expression(*selector)?;
                self.line(format_args!("switch ({selector}) {{"))?;
                for case in cases {
                    match case.value {
                        SwitchValue::I32(i) => {
                            self.line(format_args!("case {}: {{", int(i)))?;
                        }
                        SwitchValue::U32(i) => self.line(format_args!("case {i}u: {{"))?,
                        SwitchValue::Default => self.line(format_args!("default: {{"))?,
                    }
                    self.inner_block(&case.body)?;
                    let end = if case.fall_through { "}" } else { "} break;" };
                    self.line(format_args!("{end}"))?;
                }
                self.line(format_args!("}}"))?;
            }
            Statement::Loop {
                body,
                continuing,
                break_if,
            } => self.repeat(body, continuing, *break_if)?,
            Statement::Break => self.line(format_args!("break;"))?,
            Statement::Continue => {
                let label = self.labels.last().cloned().unwrap_or_default();
                self.line(format_args!("goto {label};"))?;
            }
            Statement::Return { value: Some(value) } => {
                let value = self.expression(*value)?;
                self.line(format_args!("return {value};"))?;
            }
            Statement::Return { value: None } => self.line(format_args!("return;"))?,
            Statement::ControlBarrier(barrier) => {
                let workgroup = barrier.intersects(Barrier::STORAGE | Barrier::WORK_GROUP);
                match workgroup {
                    true => self.line(format_args!("__syncthreads();"))?,
                    false => self.line(format_args!("__syncwarp(wgsl::warp_mask());"))?,
                }
            }
            Statement::MemoryBarrier(barrier) => match barrier.contains(Barrier::STORAGE) {
                true => self.line(format_args!("__threadfence();"))?,
                false => self.line(format_args!("__threadfence_block();"))?,
            },
            Statement::Store { pointer, value } => self.store(*pointer, *value)?,
            Statement::Atomic {
                pointer,
                fun,
                value,
                result,
            } => {
                let place = self.place(*pointer)?;
                let value = self.expression(*value)?;
                let call = match fun {
                    AtomicFunction::Add => format!("atomicAdd(&{place}, {value})"),
                    AtomicFunction::Subtract => format!("wgsl::atomic_sub(&{place}, {value})"),
                    AtomicFunction::And => format!("atomicAnd(&{place}, {value})"),
                    AtomicFunction::ExclusiveOr => format!("atomicXor(&{place}, {value})"),
                    AtomicFunction::InclusiveOr => format!("atomicOr(&{place}, {value})"),
                    AtomicFunction::Min => format!("atomicMin(&{place}, {value})"),
                    AtomicFunction::Max => format!("atomicMax(&{place}, {value})"),
                    AtomicFunction::Exchange { compare: None } => {
                        format!("atomicExch(&{place}, {value})")
                    }
                    AtomicFunction::Exchange {
                        compare: Some(compare),
                    } => {
                        let Some(result) = result else {
                            return unsupported("a compare-exchange without a result");
                        };
                        let (ty, compare) =
                            (self.expression_type(*result)?, self.expression(*compare)?);
                        format!("wgsl::atomic_compare_exchange<{ty}>(&{place}, {compare}, {value})")
                    }
                };
                self.call(*result, &call)?;
            }
            Statement::WorkGroupUniformLoad { pointer, result } => {
                let place = self.place(*pointer)?;
                self.name(*result, &format!("wgsl::uniform_load({place})"))?;
            }
            Statement::Call {
                function,
                arguments,
                result,
            } => {
                let mut values = Vec::new();
                for argument in arguments {
                    values.push(self.expression(*argument)?);
                }
                let name = self.writer.function_name(*function);
                self.call(*result, &format!("{name}({})", values.join(", ")))?;
            }
            Statement::SubgroupBallot { result, predicate } => {
                let predicate = match predicate {
                    Some(predicate) => self.expression(*predicate)?,
                    None => "true".to_string(),
                };
                self.name(*result, &format!("wgsl::ballot({predicate})"))?;
            }
            Statement::SubgroupGather {
                mode,
                argument,
                result,
            } => {
                let a = self.expression(*argument)?;
                let from = |body: &Self, lane: &Handle<Expression>| body.expression(*lane);
                let call = match mode {
                    GatherMode::BroadcastFirst => format!("wgsl::shuffle({a}, 0u)"),
                    GatherMode::Broadcast(lane) | GatherMode::Shuffle(lane) => {
                        format!("wgsl::shuffle({a}, (u32)({}))", from(self, lane)?)
                    }
                    GatherMode::ShuffleDown(by) => {
                        format!("wgsl::shuffle_down({a}, {})", from(self, by)?)
                    }
                    GatherMode::ShuffleUp(by) => {
                        format!("wgsl::shuffle_up({a}, {})", from(self, by)?)
                    }
                    GatherMode::ShuffleXor(mask) => {
                        format!("wgsl::shuffle_xor({a}, {})", from(self, mask)?)
                    }
                    GatherMode::QuadBroadcast(lane) => {
                        let lane = from(self, lane)?;
                        format!("wgsl::shuffle({a}, (wgsl::lane() & ~3u) | (u32)({lane}))")
                    }
                    GatherMode::QuadSwap(direction) => {
                        let mask = match direction {
                            Direction::X => 1,
                            Direction::Y => 2,
                            Direction::Diagonal => 3,
                        };
                        format!("wgsl::shuffle_xor({a}, {mask}u)")
                    }
                };
                self.name(*result, &call)?;
            }
            Statement::SubgroupCollectiveOperation {
                op,
                collective_op,
                argument,
                result,
            } => {
                let call = self.collective(*op, *collective_op, *argument)?;
                self.name(*result, &call)?;
            }
            Statement::CooperativeStore { target, data } => {
                let (value, stride) = (self.expression(*target)?, self.expression(data.stride)?);
                let place = self.place(data.pointer)?;
                let row_major = data.row_major;
                self.line(format_args!(
                    "wgsl::coop_store<{row_major}>({value}, &{place}, {stride});"
                ))?;
            }
            other => return unsupported(format!("statement {other:?}")),
        }
        Ok(())
    }

    /// A call whose result may be used.
    fn call(&mut self, result: Option<Handle<Expression>>, call: &str) -> Result<()> {
        match result {
            Some(result) => self.name(result, call),
            None => self.line(format_args!("{call};")),
        }
    }

    fn collective(
        &self,
        op: SubgroupOperation,
        collective: CollectiveOperation,
        argument: Handle<Expression>,
    ) -> Result<String> {
        let a = self.expression(argument)?;
        let name = match op {
            SubgroupOperation::All => "all",
            SubgroupOperation::Any => "any",
            SubgroupOperation::Add => "add",
            SubgroupOperation::Mul => "mul",
            SubgroupOperation::Min => "min",
            SubgroupOperation::Max => "max",
            SubgroupOperation::And => "and",
            SubgroupOperation::Or => "or",
            SubgroupOperation::Xor => "xor",
        };
        let scans = matches!(op, SubgroupOperation::Add | SubgroupOperation::Mul);
        Ok(match collective {
            CollectiveOperation::Reduce => format!("wgsl::subgroup_{name}({a})"),
            CollectiveOperation::InclusiveScan if scans => {
                format!("wgsl::subgroup_inclusive_{name}({a})")
            }
            CollectiveOperation::ExclusiveScan if scans => {
                format!("wgsl::subgroup_exclusive_{name}({a})")
            }
            _ => return unsupported(format!("a subgroup's scan by {op:?}")),
        })
    }

    fn store(&mut self, pointer: Handle<Expression>, value: Handle<Expression>) -> Result<()> {
        let value = self.expression(value)?;
        if let Some((vector, index)) = self.component_in_registers(pointer)? {
            return self.line(format_args!("wgsl::put({vector}, {index}, {value});"));
        }
        let place = self.place(pointer)?;
        match self
            .inner(pointer)
            .is_atomic_pointer(&self.writer.module.types)
        {
            true => self.line(format_args!("wgsl::atomic_store({place}, {value});")),
            false => self.line(format_args!("{place} = {value};")),
        }
    }

    /// `continue` is a jump to the `continuing` block, which stands behind the body as written.
    fn repeat(
        &mut self,
        body: &Block,
        continuing: &Block,
        break_if: Option<Handle<Expression>>,
    ) -> Result<()> {
        let label = format!("continue_{}", self.loops);
        self.loops += 1;
        let jumps = continues(body);
        self.line(format_args!("while (true) {{"))?;
        self.depth += 1;
        let start = self.out.len();
        self.labels.push(label.clone());
        self.declared.push(Vec::new());
        match jumps {
            // A jump may not pass over declarations: they end before the label.
            true => {
                self.line(format_args!("{{"))?;
                self.inner_block(body)?;
                self.line(format_args!("}}"))?;
                self.line(format_args!("{label}:;"))?;
            }
            false => self.block(body)?,
        }
        self.labels.pop();
        let declared = self.declared.pop().unwrap_or_default();
        let end = self.out.len();
        self.block(continuing)?;
        if let Some(condition) = break_if {
            let condition = self.expression(condition)?;
            self.line(format_args!("if ({condition}) break;"))?;
        }
        if jumps {
            self.hoist(&declared, start, end)?;
        }
        self.depth -= 1;
        self.line(format_args!("}}"))
    }

    /// Declares before the body (from `start` to `end` of the text) what is used behind it.
    fn hoist(&mut self, declared: &[Declared], start: usize, end: usize) -> Result<()> {
        let behind = self.out.split_off(end);
        let mut inside = self.out.split_off(start);
        for Declared { ty, name } in declared {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if behind.split(|c| !is_word(c)).any(|word| word == name) {
                self.line(format_args!("{ty} {name};"))?;
                inside =
                    inside.replacen(&format!("const {ty} {name} = "), &format!("{name} = "), 1);
            }
        }
        self.out.push_str(&inside);
        self.out.push_str(&behind);
        Ok(())
    }
}

/// Does `continue` of this loop occur in its body?
fn continues(block: &Block) -> bool {
    block.iter().any(|statement| match statement {
        Statement::Continue => true,
        Statement::Block(block) => continues(block),
        Statement::If { accept, reject, .. } => continues(accept) || continues(reject),
        Statement::Switch { cases, .. } => cases.iter().any(|case| continues(&case.body)),
        _ => false,
    })
}

/// A signed number; the lowest has no literal.
pub(crate) fn int(i: i32) -> String {
    match i {
        i32::MIN => "(-2147483647 - 1)".to_string(),
        _ => format!("{i}"),
    }
}
