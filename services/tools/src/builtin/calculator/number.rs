use std::fmt;

/// Whole while it can be, so that large products are right to the last digit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(i128),
    Real(f64),
}

use Number::{Real, Whole};

/// What the model is told.
pub(super) type Computed = Result<Number, String>;

impl Number {
    pub(super) fn real(self) -> f64 {
        match self {
            Whole(value) => value as f64,
            Real(value) => value,
        }
    }

    /// A float's result, unless it is none.
    pub(super) fn finite(value: f64, what: &str) -> Computed {
        if value.is_nan() {
            Err(format!("{what} is not defined there"))
        } else if value.is_infinite() {
            Err(format!("the result of {what} is too large"))
        } else {
            Ok(Real(value))
        }
    }

    pub(super) fn negate(self) -> Number {
        match self {
            Whole(value) => value.checked_neg().map_or(Real(-(value as f64)), Whole),
            Real(value) => Real(-value),
        }
    }

    pub(super) fn add(self, other: Number) -> Computed {
        self.whole(other, i128::checked_add).map_or_else(|| Self::finite(self.real() + other.real(), "the addition"), Ok)
    }

    pub(super) fn subtract(self, other: Number) -> Computed {
        self.whole(other, i128::checked_sub).map_or_else(|| Self::finite(self.real() - other.real(), "the subtraction"), Ok)
    }

    pub(super) fn multiply(self, other: Number) -> Computed {
        self.whole(other, i128::checked_mul).map_or_else(|| Self::finite(self.real() * other.real(), "the multiplication"), Ok)
    }

    pub(super) fn divide(self, other: Number) -> Computed {
        if other.real() == 0.0 {
            return Err("division by zero".into());
        }
        let exact = |a: i128, b: i128| if a.checked_rem(b)? == 0 { a.checked_div(b) } else { None };
        self.whole(other, exact).map_or_else(|| Self::finite(self.real() / other.real(), "the division"), Ok)
    }

    /// The remainder has the sign of the divisor, as in mathematics and in Python.
    pub(super) fn remainder(self, other: Number) -> Computed {
        if other.real() == 0.0 {
            return Err("remainder of a division by zero".into());
        }
        let floored = |a: i128, b: i128| {
            let rest = a.checked_rem(b)?;
            if rest != 0 && (rest < 0) != (b < 0) { rest.checked_add(b) } else { Some(rest) }
        };
        let real = || self.real() - other.real() * (self.real() / other.real()).floor();
        self.whole(other, floored).map_or_else(|| Self::finite(real(), "the remainder"), Ok)
    }

    pub(super) fn power(self, other: Number) -> Computed {
        if self.real() == 0.0 && other.real() < 0.0 {
            return Err("division by zero: zero to a negative power".into());
        }
        let exact = |a: i128, b: i128| a.checked_pow(u32::try_from(b).ok()?);
        self.whole(other, exact).map_or_else(|| Self::finite(self.real().powf(other.real()), "the power"), Ok)
    }

    /// A float that is whole and small enough to be exact, as a whole number.
    pub(super) fn settled(self) -> Number {
        match self {
            Real(value) if value.fract() == 0.0 && value.abs() < 9e15 => Whole(value as i128),
            other => other,
        }
    }

    fn whole(self, other: Number, compute: impl Fn(i128, i128) -> Option<i128>) -> Option<Number> {
        match (self, other) {
            (Whole(a), Whole(b)) => compute(a, b).map(Whole),
            _ => None,
        }
    }
}

/// Floats with 15 significant digits: the sixteenth is where 0.1 + 0.2 shows that it is not 0.3.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.settled() {
            Whole(value) => write!(f, "{value}"),
            Real(value) => {
                let rounded: f64 = format!("{value:.14e}").parse().unwrap_or(value);
                let size = rounded.abs();
                if (1e-6..1e15).contains(&size) { write!(f, "{rounded}") } else { write!(f, "{rounded:e}") }
            }
        }
    }
}
