//! The attempt's spending.
//!
//! Owns the running total and the reservations of requests in flight. A request is admitted while what is spent plus
//! what is reserved is below the budget, so a budget is passed by the replies that are on their way when it is reached,
//! each by what it costs beyond its reservation. Every admitted request ends in exactly one settlement, however it
//! ends: the `Charge` settles itself when it is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::event::{Event, Sink};
use super::usage::{Price, Usage};

/// Output tokens that are reserved for a request in flight, at most. Its `max_tokens` is often the model's limit and
/// would turn a small budget into none.
const RESERVED_OUTPUT: u64 = 8192;

/// Bytes of a request that are taken for one token. Real requests have about four.
const BYTES_PER_TOKEN: u64 = 3;

/// A cheap handle on the spending.
#[derive(Clone, Debug)]
pub struct Meter {
    state: Arc<Mutex<State>>,
    sink: Sink,
}

impl Meter {
    pub(super) fn new(budget_micros: u64, spent_micros: u64, sink: Sink) -> Self {
        let state = State {
            budget: budget_micros,
            spent: spent_micros,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            sink,
        }
    }

    /// Micro-USD spent, with what earlier attempts had spent.
    pub fn spent_micros(&self) -> u64 {
        self.lock().spent
    }

    /// Tokens counted by this process.
    pub fn usage(&self) -> Usage {
        self.lock().usage
    }

    /// Sets the budget, in micro-USD with what earlier attempts had spent.
    pub fn set_budget_micros(&self, budget: u64) {
        self.lock().budget = budget;
    }

    /// Admits a request, or says what is spent and what the budget is.
    pub(super) fn admit(
        &self,
        price: Price,
        body_bytes: usize,
        max_tokens: u64,
    ) -> Result<Charge, (u64, u64)> {
        let input = Usage {
            input: (body_bytes as u64).div_ceil(BYTES_PER_TOKEN),
            ..Usage::default()
        };
        let whole = Usage {
            output: max_tokens.min(RESERVED_OUTPUT),
            ..input
        };
        let reserved = price.cost_micros(whole);
        let mut state = self.lock();
        if state.spent.saturating_add(state.reserved) >= state.budget {
            return Err((state.spent, state.budget));
        }
        state.reserved = state.reserved.saturating_add(reserved);
        drop(state);
        Ok(Charge {
            meter: self.clone(),
            price,
            reserved,
            usage: input,
        })
    }

    fn settle(&self, price: &Price, reserved: u64, usage: Usage) {
        let mut state = self.lock();
        state.reserved = state.reserved.saturating_sub(reserved);
        if usage == Usage::default() {
            return;
        }
        state.spent = state.spent.saturating_add(price.cost_micros(usage));
        state.usage = state.usage.plus(usage);
        let event = Event::Spend {
            total_micros: state.spent,
            usage: state.usage,
        };
        // Under the lock, so that totals reach the driver in order.
        self.sink.put(event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One admitted request. Until it is told more it stands for its input, which the host has read by then.
#[derive(Debug)]
pub(super) struct Charge {
    meter: Meter,
    price: Price,
    reserved: u64,
    usage: Usage,
}

impl Charge {
    /// What will be charged.
    pub(super) fn set(&mut self, usage: Usage) {
        self.usage = usage;
    }

    /// The input's estimate stays and only the output is known.
    pub(super) fn set_output(&mut self, output: u64) {
        self.usage.output = output;
    }

    /// The host did not take the request: it costs nothing.
    pub(super) fn waive(mut self) {
        self.usage = Usage::default();
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.meter.settle(&self.price, self.reserved, self.usage);
    }
}

#[derive(Debug, Default)]
struct State {
    budget: u64,
    spent: u64,
    reserved: u64,
    usage: Usage,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::super::event;
    use super::*;

    fn price() -> Price {
        Price {
            model_prefix: String::new(),
            input: 1_000_000,
            output: 1_000_000,
            cache_read: 0,
            cache_write_5m: 0,
            cache_write_1h: 0,
        }
    }

    #[test]
    fn requests_in_flight_hold_their_part_of_the_budget() {
        let (sink, _events) = event::channel();
        let meter = Meter::new(100, 0, sink);
        let first = meter.admit(price(), 30, 200).unwrap();
        assert_eq!(meter.admit(price(), 30, 200).unwrap_err(), (0, 100));
        first.waive();
        assert_eq!(meter.spent_micros(), 0);
        let mut second = meter.admit(price(), 30, 200).unwrap();
        second.set(Usage {
            input: 10,
            output: 5,
            ..Usage::default()
        });
        drop(second);
        assert_eq!(meter.spent_micros(), 15);
        meter.set_budget_micros(15);
        assert_eq!(meter.admit(price(), 30, 1).unwrap_err(), (15, 15));
    }

    #[test]
    fn a_request_that_vanishes_is_charged_for_its_input() {
        let (sink, _events) = event::channel();
        let meter = Meter::new(100, 0, sink);
        drop(meter.admit(price(), 31, 200).unwrap());
        assert_eq!(meter.spent_micros(), 11);
    }
}
