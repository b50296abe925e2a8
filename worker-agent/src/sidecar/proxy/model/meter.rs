//! The attempt's spending.
//!
//! Owns the running total and the reservations of requests in flight. A request is admitted while what is spent plus
//! what is reserved is below the budget, so a budget is passed by the replies that are on their way when it is reached,
//! each by what it costs beyond its reservation. Every admitted request ends in exactly one settlement, however it
//! ends: the `Charge` settles itself when it is dropped. A reply that the client hangs up on is charged for the time that
//! the host may have worked on it unseen.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::event::{Event, Sink};
use super::usage::{Price, Usage};

/// Output tokens that are reserved for a request in flight, at most. Its `max_tokens` is often the model's limit and
/// would turn a small budget into none.
const RESERVED_OUTPUT: u64 = 8192;

/// Output tokens that a host is taken to make in a second, where nobody saw how many there were.
const TOKENS_PER_SECOND: u64 = 50;

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

    /// Lets so much more be spent, from what is spent now or from the budget.
    pub fn allow(&self, micros: u64) {
        let mut state = self.lock();
        state.budget = state.budget.max(state.spent).saturating_add(micros);
    }

    /// Tokens counted by this process.
    pub fn usage(&self) -> Usage {
        self.lock().usage
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
            max_tokens,
            began: Instant::now(),
            usage: input,
            told: Usage::default(),
            is_whole: false,
        })
    }

    /// Releases a reservation, and counts what a request costs beyond what was told of it.
    fn settle(&self, price: &Price, reserved: u64, told: Usage, usage: Usage) {
        let mut state = self.lock();
        state.reserved = state.reserved.saturating_sub(reserved);
        if usage == told {
            return;
        }
        let cost = price.cost_micros(usage);
        state.spent = state
            .spent
            .saturating_add(cost.saturating_sub(price.cost_micros(told)));
        state.usage = state.usage.plus(usage.minus(told));
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
    max_tokens: u64,
    began: Instant,
    usage: Usage,
    /// What is counted already.
    told: Usage,
    /// The reply was seen to its end, or the host ended it.
    is_whole: bool,
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

    /// Counts what is certain before the end, so that a worker that is ended in mid-reply has told it.
    pub(super) fn tell(&mut self, usage: Usage) {
        self.meter.settle(&self.price, 0, self.told, usage);
        self.told = usage;
        self.usage = usage;
    }

    /// Nothing more comes, and nothing was missed.
    pub(super) fn whole(&mut self) {
        self.is_whole = true;
    }

    /// The host did not take the request: it costs nothing.
    pub(super) fn waive(mut self) {
        self.usage = Usage::default();
        self.is_whole = true;
    }

    /// The client hung up: the host may have gone on for all that time.
    fn cut(&mut self, after: Duration) {
        let unseen = after.as_secs().saturating_mul(TOKENS_PER_SECOND);
        self.usage.output = self.usage.output.max(unseen.min(self.max_tokens));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if !self.is_whole {
            self.cut(self.began.elapsed());
        }
        self.meter
            .settle(&self.price, self.reserved, self.told, self.usage);
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
    }

    #[test]
    fn what_is_told_early_is_counted_once() {
        let (sink, _events) = event::channel();
        let meter = Meter::new(1000, 0, sink);
        let mut charge = meter.admit(price(), 30, 200).unwrap();
        let input = Usage {
            input: 40,
            ..Usage::default()
        };
        charge.tell(input);
        assert_eq!(meter.spent_micros(), 40);
        charge.set(Usage { output: 7, ..input });
        drop(charge);
        assert_eq!(meter.spent_micros(), 47);
        assert_eq!((meter.usage().input, meter.usage().output), (40, 7));
    }

    #[test]
    fn a_reply_that_is_hung_up_on_costs_the_time_that_it_took() {
        let (sink, _events) = event::channel();
        let meter = Meter::new(1_000_000, 0, sink);
        for (after, seen, output) in [(0, 9, 9), (5, 9, 250), (5, 600, 600), (60, 9, 2000)] {
            let mut charge = meter.admit(price(), 30, 2000).unwrap();
            charge.set_output(seen);
            charge.cut(Duration::from_secs(after));
            assert_eq!(charge.usage.output, output, "after {after} s");
        }
    }

    #[test]
    fn what_is_allowed_counts_from_what_is_spent() {
        let (sink, _events) = event::channel();
        let meter = Meter::new(100, 250, sink);
        assert_eq!(meter.admit(price(), 30, 200).unwrap_err(), (250, 100));
        meter.allow(5);
        assert!(meter.admit(price(), 30, 200).is_ok());
        let meter_below = Meter::new(100, 20, event::channel().0);
        meter_below.allow(5);
        assert_eq!(meter_below.lock().budget, 105);
    }

    #[test]
    fn a_request_that_vanishes_is_charged_for_its_input() {
        let (sink, _events) = event::channel();
        let meter = Meter::new(100, 0, sink);
        drop(meter.admit(price(), 31, 200).unwrap());
        assert_eq!(meter.spent_micros(), 11);
    }
}
