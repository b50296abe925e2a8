//! The workflow of a task as a pure state machine: no clock, no database, no I/O.
//!
//! [`next`] takes a task, an event and the time, and returns the task after it with what is wanted done about it,
//! or says why the event does not fit. The plane stores both in one transaction and makes the world match.

mod event;
mod limits;
mod reason;
mod state;
mod task;
mod transition;

pub use event::{CiHold, Event, EventKind};
pub use limits::{Limits, NoCi, ReadyBeforeCi, Unanswered, bounded};
pub use reason::{Choice, Credential, REASONS, Reason, Response, Row, troubleshooting};
pub use state::{Group, State};
pub use task::{
    Asked, Completion, Failure, Gate, Phase, PhaseKind, Plan, Run, Stage, Step, Task, Wait,
};
pub use transition::{Edge, Rejected, TABLE, Timer, Transition, Want, diagram, next, step};
