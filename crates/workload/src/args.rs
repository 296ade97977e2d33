//! Arguments: targets, and options that each take a value.

use std::{str::FromStr, thread, time::Duration};

use crate::Error;

/// The parsed arguments of one role.
#[derive(Debug)]
pub(crate) struct Args {
    targets: Vec<String>,
    options: Vec<(String, String)>,
}

/// How often, and how many times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) every: Duration,
    pub(crate) times: Times,
}

/// How many times something is done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Times {
    Endless,
    Count(u64),
}

impl Pace {
    /// The numbers of the rounds from 1, each after its pause.
    pub(crate) fn rounds(self) -> impl Iterator<Item = u64> {
        let last = match self.times {
            Times::Endless => u64::MAX,
            Times::Count(n) => n,
        };
        (1..=last).inspect(move |&round| {
            if round > 1 {
                thread::sleep(self.every);
            }
        })
    }
}

impl Args {
    pub(crate) fn parse(args: &[String], known: &[&str]) -> Result<Self, Error> {
        let mut parsed = Self { targets: Vec::new(), options: Vec::new() };
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let Some(name) = arg.strip_prefix("--") else {
                parsed.targets.push(arg.clone());
                continue;
            };
            if !known.contains(&name) {
                return Err(Error::Usage(format!("unknown option {arg}")));
            }
            let value = rest.next().ok_or_else(|| Error::Usage(format!("{arg} needs a value")))?;
            parsed.options.push((name.to_owned(), value.clone()));
        }
        Ok(parsed)
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.options.iter().filter(|(n, _)| n == name).map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn one(&self, name: &str) -> Result<&str, Error> {
        self.maybe(name)?.ok_or_else(|| Error::Usage(format!("--{name} is missing")))
    }

    pub(crate) fn number<N: FromStr>(&self, name: &str) -> Result<N, Error> {
        parse_number(name, self.one(name)?)
    }

    pub(crate) fn pace(&self) -> Result<Pace, Error> {
        let times = match self.maybe("count")? {
            Some(text) => Times::Count(parse_number("count", text)?),
            None => Times::Endless,
        };
        Ok(Pace { every: Duration::from_millis(self.number("every")?), times })
    }

    pub(crate) fn targets(&self) -> Result<&[String], Error> {
        if self.targets.is_empty() { Err(Error::Usage("no target".to_owned())) } else { Ok(&self.targets) }
    }

    pub(crate) fn target(&self) -> Result<&str, Error> {
        match self.targets.as_slice() {
            [target] => Ok(target),
            _ => Err(Error::Usage("exactly one target is needed".to_owned())),
        }
    }

    pub(crate) fn no_targets(&self) -> Result<(), Error> {
        self.targets.first().map_or(Ok(()), |t| Err(Error::Usage(format!("unexpected {t:?}"))))
    }

    pub(crate) fn maybe(&self, name: &str) -> Result<Option<&str>, Error> {
        let mut values = self.options.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Error::Usage(format!("--{name} is given twice"))),
        }
    }
}

fn parse_number<N: FromStr>(name: &str, text: &str) -> Result<N, Error> {
    text.parse().map_err(|_| Error::Usage(format!("--{name} {text}: not a number in range")))
}
