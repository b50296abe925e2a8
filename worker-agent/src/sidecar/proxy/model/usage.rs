//! Tokens, prices, and what a reply costs.

use serde::Deserialize;

/// Tokens by the way they are charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input tokens that no cache held.
    pub input: u64,
    /// Output tokens, thinking included.
    pub output: u64,
    /// Input tokens read from the cache.
    pub cache_read: u64,
    /// Input tokens written to the cache for 5 minutes.
    pub cache_write_5m: u64,
    /// Input tokens written to the cache for an hour.
    pub cache_write_1h: u64,
}

impl Usage {
    /// What is beyond a count.
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_sub(other.input),
            output: self.output.saturating_sub(other.output),
            cache_read: self.cache_read.saturating_sub(other.cache_read),
            cache_write_5m: self.cache_write_5m.saturating_sub(other.cache_write_5m),
            cache_write_1h: self.cache_write_1h.saturating_sub(other.cache_write_1h),
        }
    }

    /// The sum of two counts.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write_5m: self.cache_write_5m.saturating_add(other.cache_write_5m),
            cache_write_1h: self.cache_write_1h.saturating_add(other.cache_write_1h),
        }
    }
}

/// The price of one model in micro-USD per million tokens (3 USD per million is 3,000,000).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Models that this is the price of: all whose names begin so. The longest prefix wins.
    pub model_prefix: String,
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Cache reads.
    pub cache_read: u64,
    /// Cache writes for 5 minutes.
    pub cache_write_5m: u64,
    /// Cache writes for an hour.
    pub cache_write_1h: u64,
}

impl Price {
    /// Micro-USD, rounded up.
    pub fn cost_micros(&self, usage: Usage) -> u64 {
        let parts = [
            (usage.input, self.input),
            (usage.output, self.output),
            (usage.cache_read, self.cache_read),
            (usage.cache_write_5m, self.cache_write_5m),
            (usage.cache_write_1h, self.cache_write_1h),
        ];
        let sum: u128 = parts
            .into_iter()
            .map(|(tokens, price)| u128::from(tokens) * u128::from(price))
            .sum();
        u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// The price of a model, by the longest prefix.
pub(super) fn price_of<'a>(prices: &'a [Price], model: &str) -> Option<&'a Price> {
    prices
        .iter()
        .filter(|price| model.starts_with(&price.model_prefix))
        .max_by_key(|price| price.model_prefix.len())
}

/// `usage` as the API writes it. Later counts of one reply replace earlier ones, and are never smaller.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Reported {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
}

#[derive(Debug, Default, Deserialize)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Option<u64>,
    ephemeral_1h_input_tokens: Option<u64>,
}

impl Reported {
    /// Raises the counts to what is reported here.
    pub(super) fn raise(&self, usage: &mut Usage) {
        let raise =
            |count: &mut u64, reported: Option<u64>| *count = (*count).max(reported.unwrap_or(0));
        raise(&mut usage.input, self.input_tokens);
        raise(&mut usage.output, self.output_tokens);
        raise(&mut usage.cache_read, self.cache_read_input_tokens);
        let hour = self
            .cache_creation
            .as_ref()
            .and_then(|c| c.ephemeral_1h_input_tokens);
        let minutes = self
            .cache_creation
            .as_ref()
            .and_then(|c| c.ephemeral_5m_input_tokens);
        // A host that does not split its writes means the short ones.
        let rest = self
            .cache_creation_input_tokens
            .map(|all| all.saturating_sub(hour.unwrap_or(0)));
        raise(&mut usage.cache_write_1h, hour);
        raise(&mut usage.cache_write_5m, minutes.max(rest));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn price(prefix: &str, unit: u64) -> Price {
        Price {
            model_prefix: prefix.into(),
            input: unit,
            output: unit * 5,
            cache_read: unit / 10,
            cache_write_5m: unit * 5 / 4,
            cache_write_1h: unit * 2,
        }
    }

    #[test]
    fn cost_is_summed_and_rounded_up() {
        let p = price("", 3_000_000);
        assert_eq!(p.cost_micros(Usage::default()), 0);
        assert_eq!(
            p.cost_micros(Usage {
                cache_read: 1,
                ..Usage::default()
            }),
            1
        );
        let all = Usage {
            input: 1000,
            output: 100,
            cache_read: 10_000,
            cache_write_5m: 400,
            cache_write_1h: 10,
        };
        assert_eq!(p.cost_micros(all), 3000 + 1500 + 3000 + 1500 + 60);
        let most = Usage {
            input: u64::MAX,
            output: u64::MAX,
            ..Usage::default()
        };
        assert_eq!(p.cost_micros(most), u64::MAX);
    }

    #[test]
    fn the_longest_prefix_wins() {
        let prices = [price("claude-", 1), price("claude-opus", 2), price("x", 3)];
        assert_eq!(price_of(&prices, "claude-opus-5-5").unwrap().input, 2);
        assert_eq!(price_of(&prices, "claude-haiku").unwrap().input, 1);
        assert!(price_of(&prices, "glm").is_none());
    }

    #[test]
    fn cache_writes_are_split_or_taken_as_short() {
        let mut usage = Usage::default();
        let reported: Reported = serde_json::from_str(
            r#"{"cache_creation_input_tokens":10,"cache_creation":{"ephemeral_5m_input_tokens":4,"ephemeral_1h_input_tokens":6}}"#,
        )
        .unwrap();
        reported.raise(&mut usage);
        assert_eq!((usage.cache_write_5m, usage.cache_write_1h), (4, 6));
        let reported: Reported =
            serde_json::from_str(r#"{"cache_creation_input_tokens":10}"#).unwrap();
        let mut usage = Usage::default();
        reported.raise(&mut usage);
        assert_eq!((usage.cache_write_5m, usage.cache_write_1h), (10, 0));
    }
}
