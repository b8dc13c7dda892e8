//! Holds the programs attached that `cargo xtask bench` compares capture with.
//!
//! `bench-probes OBJECT PREFIX` attaches PREFIX_enter and PREFIX_exit of the kernel object to all
//! system calls, says so, and keeps them until its standard input ends. No part of the product.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::programs::RawTracePoint;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [object, prefix] = arguments.as_slice() else {
        bail!("usage: bench-probes OBJECT PREFIX");
    };
    let mut object = Ebpf::load_file(object).with_context(|| format!("cannot load {object}"))?;
    for (name, tracepoint) in [("enter", "sys_enter"), ("exit", "sys_exit")] {
        let name = format!("{prefix}_{name}");
        let program = object
            .program_mut(&name)
            .with_context(|| format!("the object has no program {name}"))?;
        let program: &mut RawTracePoint = program.try_into()?;
        program.load()?;
        program.attach(tracepoint)?;
    }
    println!("attached");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
