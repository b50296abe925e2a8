//! One function for each command: connect, call, print.

mod access;
mod completions;
mod doctor;
mod inbox;
mod patience;
mod programs;
mod resolve;
mod show;
mod task;
mod up;

use std::process::ExitCode;

pub(crate) use self::{
    resolve::choose,
    show::{Page, hides_something},
    task::mark,
};

use crate::{
    args::{Args, Command, Global},
    client::{Client, ConnectError},
    exit::Exit,
    output::Output,
};

/// Runs the command.
pub(crate) async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let Args { global, command } = args;
    let exit = match command {
        Command::Up(up) => up::run(up)?,
        Command::Task(command) => Box::pin(task::run(command, &global, output)).await?,
        Command::Inbox(inbox) => inbox::run(&inbox, &global, output).await?,
        Command::Show(show) => show::run(&show.item, &global, output).await?,
        Command::Approve(approve) => resolve::approve(approve, &global, output).await?,
        Command::Reject(resolve) => resolve::reject(resolve, &global, output).await?,
        Command::Revise(resolve) => resolve::revise(resolve, &global, output).await?,
        Command::Answer(answer) => resolve::answer(answer, &global, output).await?,
        Command::Resolve(way) => resolve::choose_way(way, &global, output).await?,
        Command::Token(token) => access::token(token, &global, output).await?,
        Command::Whoami => access::whoami(&global, output).await?,
        Command::Status => access::status(&global, output).await?,
        Command::Doctor(doctor) => doctor::run(doctor, output).await?,
        Command::Completions { shell } => completions::run(shell, output)?,
    };
    Ok(ExitCode::from(exit))
}

async fn connect(global: &Global) -> Result<Client, ConnectError> {
    Client::connect(&global.target()?).await
}

const DONE: Exit = Exit::Done;
