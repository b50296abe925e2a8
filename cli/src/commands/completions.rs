//! `mainloop completions`.

use clap::CommandFactory;

use crate::{args::Args, exit::Exit, output::Output};

pub(super) fn run(shell: clap_complete::Shell, output: &Output) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "mainloop", &mut script);
    output.raw(&String::from_utf8_lossy(&script))?;
    Ok(super::DONE)
}
