//! What calls cost, by lists that operators keep: prices are data, with the date that they are of.
//!
//! INVARIANT: sums are of whole billionths, rounded up, so nothing is lost in fractions
//! (`what_a_call_costs_is_exact_and_rounded_up`).

use std::fmt;

use signet_policy::Origin;

use crate::{Choice, Pattern, Tokens, call::Call};

/// An amount of money, in billionths of the currency's unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub u64);

impl Amount {
    /// One unit of the currency.
    const UNIT: u64 = 1_000_000_000;
    /// The largest one that is read: a million. Sums of such stay exact wherever they are counted.
    pub const MAX: Self = Self(1_000_000 * Self::UNIT);

    /// Reads a decimal number: `25`, `0.30`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let fault = || "is no amount: digits, and at most nine behind a point, as in \"0.30\"".to_owned();
        let (units, rest) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(units) || !digits(rest) || rest.len() > 9 {
            return Err(fault());
        }
        let too_much = || format!("is more than {}", Self::MAX);
        let units: u64 = units.parse().map_err(|_| too_much())?;
        let rest: u64 = format!("{rest:0<9}").parse().map_err(|_| fault())?;
        let amount = units.checked_mul(Self::UNIT).and_then(|units| units.checked_add(rest));
        amount.map(Self).filter(|amount| *amount <= Self::MAX).ok_or_else(too_much)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, rest) = (self.0 / Self::UNIT, self.0 % Self::UNIT);
        let rest = format!("{rest:09}");
        // two digits at least, as money is written
        let kept = rest.trim_end_matches('0').len().max(2);
        write!(f, "{units}.{}", &rest[..kept])
    }
}

/// What all lists say (`ModelPrices`), the newest first; of one date, by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prices {
    lists: Vec<PriceList>,
}

/// One list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceList {
    /// Its name.
    pub name: String,
    /// The day that it is of: `2026-11-01`.
    pub as_of: String,
    /// What its amounts are of: `USD`.
    pub currency: String,
    /// In the order in which they were written: the first that is of a call holds.
    pub prices: Vec<Price>,
    /// Where it was written.
    pub origin: Origin,
}

/// What calls of some models cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// Providers, by name.
    pub providers: Choice<String>,
    /// Publishers, by name.
    pub publishers: Choice<String>,
    /// Models.
    pub models: Choice<Pattern>,
    /// For tokens.
    pub rate: Rate,
    /// For each call.
    pub per_request: Amount,
    /// For tokens of calls with long prompts, in place of `rate`.
    pub long_prompts: Option<LongPrompts>,
}

/// What tokens cost, by the million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// That go in.
    pub input: Amount,
    /// Of those, that the provider has stored. Default: as all that go in.
    pub cached: Amount,
    /// Of those, that the provider is to store. Default: as all that go in.
    pub cache_write: Amount,
    /// That come out.
    pub output: Amount,
}

/// What calls with long prompts cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongPrompts {
    /// Prompts of more tokens than this are long.
    pub over: u64,
    /// All tokens of such a call.
    pub rate: Rate,
}

impl Prices {
    /// What these lists say together, in whatever order they are read.
    pub fn new(mut lists: Vec<PriceList>) -> Self {
        lists.sort_by(|a, b| (&b.as_of, &a.name).cmp(&(&a.as_of, &b.name)));
        Self { lists }
    }

    /// The lists.
    pub fn lists(&self) -> &[PriceList] {
        &self.lists
    }

    /// What a call costs, and where that stands: the newest list that knows it, and there the first line.
    pub fn of(&self, call: &Call) -> Option<(&PriceList, &Price)> {
        self.lists.iter().find_map(|list| Some((list, list.prices.iter().find(|price| price.is_of(call))?)))
    }
}

impl Price {
    /// Whether it is about this call. Another spelling costs the same.
    pub fn is_of(&self, call: &Call) -> bool {
        self.providers.holds(|name| *name == call.provider)
            && self.publishers.holds(|name| name.eq_ignore_ascii_case(&call.publisher))
            && self.models.holds(|pattern| pattern.matches_in_any_case(&call.model))
    }

    /// What a call of so many tokens costs.
    pub fn cost(&self, tokens: Tokens) -> Amount {
        match self.long_prompts {
            Some(long) if tokens.input > long.over => self.by(long.rate, tokens),
            _ => self.by(self.rate, tokens),
        }
    }

    /// What a call of at most so many tokens costs at most: a short prompt may be the dearer one, and any of it may be stored.
    pub fn cost_at_most(&self, tokens: Tokens) -> Amount {
        let dearest = |rate: Rate| Rate { input: rate.input.max(rate.cached).max(rate.cache_write), ..rate };
        let tokens = Tokens { cached: 0, cache_writes: 0, ..tokens };
        let long = self.long_prompts.filter(|long| tokens.input > long.over);
        let short = self.by(dearest(self.rate), tokens);
        long.map_or(short, |long| short.max(self.by(dearest(long.rate), tokens)))
    }

    fn by(&self, rate: Rate, tokens: Tokens) -> Amount {
        let Tokens { input, cached, cache_writes, output } = tokens;
        let of = |count: u64, per_million: Amount| u128::from(count) * u128::from(per_million.0);
        // none of which are more than there are
        let cached = cached.min(input);
        let cache_writes = cache_writes.min(input - cached);
        let fresh = input - cached - cache_writes;
        let millionths = of(fresh, rate.input)
            + of(cached, rate.cached)
            + of(cache_writes, rate.cache_write)
            + of(output, rate.output);
        let tokens = u64::try_from(millionths.div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Amount(tokens.saturating_add(self.per_request.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(input: Amount, output: Amount) -> Rate {
        Rate { input, cached: input, cache_write: input, output }
    }

    fn tokens(input: u64, output: u64) -> Tokens {
        Tokens { input, output, ..Tokens::default() }
    }

    fn price(input: &str, output: &str) -> Price {
        let amount = |text| Amount::new(text).unwrap();
        Price {
            providers: Choice::Any,
            publishers: Choice::Any,
            models: Choice::Any,
            rate: rate(amount(input), amount(output)),
            per_request: Amount(0),
            long_prompts: None,
        }
    }

    #[test]
    fn an_amount_is_read_to_the_last_digit() {
        let read = |text| Amount::new(text).map(|amount| amount.0).ok();
        assert_eq!(read("0.30"), Some(300_000_000));
        assert_eq!(read("25"), Some(25_000_000_000));
        assert_eq!(read("0.000000001"), Some(1));
        assert_eq!(read("1000000"), Some(Amount::MAX.0));
        for bad in
            ["", ".5", "5.", "-1", "+1", "1e3", "1,5", "0.0000000001", "1000000.1", "99999999999999999999"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(Amount(300_000_000).to_string(), "0.30");
        assert_eq!(Amount(12_000_000_001).to_string(), "12.000000001");
    }

    #[test]
    fn what_a_call_costs_is_exact_and_rounded_up() {
        let cost = |price: &Price, input, output| price.cost(tokens(input, output)).0;
        let flash = price("0.30", "2.50");
        assert_eq!(cost(&flash, 1_000_000, 1_000_000), 2_800_000_000);
        assert_eq!(cost(&flash, 1, 1), 300 + 2500);
        // 37.5 billionths for each token: half of one is one
        assert_eq!(cost(&price("0.0375", "0"), 1, 0), 38);
        assert_eq!(cost(&price("0.0375", "0"), 2, 0), 75);
        assert_eq!(cost(&price("1000000", "1000000"), u64::MAX, u64::MAX), u64::MAX);
        let with_search = Price { per_request: Amount::new("0.035").unwrap(), ..flash };
        assert_eq!(cost(&with_search, 0, 0), 35_000_000);
    }

    #[test]
    fn what_a_call_costs_at_most_is_never_below_what_it_costs() {
        let rate = |input, cache_write, output| Rate {
            input: Amount(input),
            cached: Amount(input / 4),
            cache_write: Amount(cache_write),
            output: Amount(output),
        };
        for long in [rate(2_000_000, 2_500_000, 9_000_000), rate(500, 400, 100)] {
            let price = Price {
                rate: rate(1_000_000, 1_250_000, 2_000_000),
                long_prompts: Some(LongPrompts { over: 100, rate: long }),
                ..price("0", "0")
            };
            for input in [0, 50, 100, 101, 200] {
                for (cached, cache_writes) in
                    [(0, 0), (input, 0), (0, input), (input / 2, input / 3), (9999, 9999)]
                {
                    let cost = price.cost(Tokens { input, cached, cache_writes, output: 3 });
                    for bounded_by in [input, input + 1, 1000] {
                        assert!(cost <= price.cost_at_most(tokens(bounded_by, 3)), "{input} {cached}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_stored_has_prices_of_its_own() {
        let rate = Rate {
            input: Amount(1000),
            cached: Amount(100),
            cache_write: Amount(1250),
            output: Amount(5000),
        };
        let million = |n: u64| n * 1_000_000;
        let price = Price { rate, ..price("0", "0") };
        let all =
            Tokens { input: million(10), cached: million(7), cache_writes: million(2), output: million(1) };
        assert_eq!(price.cost(all), Amount(1000 + 7 * 100 + 2 * 1250 + 5000));
        assert_eq!(price.cost_at_most(all), Amount(10 * 1250 + 5000));
    }

    #[test]
    fn the_newest_list_that_knows_a_call_holds_in_whatever_order_they_are_read() {
        let list = |name: &str, as_of: &str, input: &str| PriceList {
            name: name.into(),
            as_of: as_of.into(),
            currency: "USD".into(),
            prices: vec![price(input, "1"), price("9", "9")],
            origin: Origin { file: "test".into(), line: 1 },
        };
        let lists =
            [list("a", "2026-10-01", "1"), list("c", "2026-11-01", "2"), list("b", "2026-11-01", "3")];
        let call = Call {
            provider: "vertex".into(),
            publisher: "google".into(),
            model: "m".into(),
            method: crate::Method::GenerateContent,
            uses: Default::default(),
        };
        let mut order = lists.to_vec();
        for _ in 0..order.len() {
            order.rotate_left(1);
            let prices = Prices::new(order.clone());
            let (list, price) = prices.of(&call).unwrap();
            assert_eq!((list.name.as_str(), price.rate.input.0), ("b", 3_000_000_000));
        }
        assert!(Prices::default().of(&call).is_none());
    }
}
