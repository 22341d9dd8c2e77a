//! Precedence climbing over bytes of the expression; evaluates as it reads.
//!
//! ```text
//! sum     := product (('+' | '-') product)*
//! product := signed (('*' | '/' | '%') signed)*
//! signed  := '-' signed | '+' signed | power           -2 ^ 2 is -4
//! power   := atom ('^' signed)?                        2 ^ 3 ^ 2 is 2 ^ 9
//! atom    := number | name | name '(' sum (',' sum)* ')' | '(' sum ')'
//! ```

use super::number::{Computed, Number};

const MAX_CHARS: usize = 1_000;
/// Nested parentheses, signs and powers; keeps the stack small.
const MAX_DEPTH: usize = 64;
const FUNCTIONS: &str = "sqrt, abs, round, floor, ceil, exp, ln, log10, log2, sin, cos, tan, asin, acos, atan, min, max";

/// # Errors
/// What to tell the model.
pub(super) fn evaluate(expression: &str) -> Computed {
    if expression.chars().count() > MAX_CHARS {
        return Err(format!("the expression is longer than {MAX_CHARS} characters"));
    }
    // Signs that models write for these.
    let text: Vec<char> = expression.replace("**", "^").replace(['×', '·'], "*").replace('÷', "/").replace('−', "-").chars().collect();
    let mut parser = Parser { text, at: 0, depth: 0 };
    let value = parser.sum()?;
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.unexpected("an operator")),
    }
}

struct Parser {
    text: Vec<char>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn sum(&mut self) -> Computed {
        let mut value = self.product()?;
        loop {
            value = match self.peek() {
                Some('+') => value.add(self.after_operator(Self::product)?)?,
                Some('-') => value.subtract(self.after_operator(Self::product)?)?,
                _ => return Ok(value),
            };
        }
    }

    fn product(&mut self) -> Computed {
        let mut value = self.signed()?;
        loop {
            value = match self.peek() {
                Some('*') => value.multiply(self.after_operator(Self::signed)?)?,
                Some('/') => value.divide(self.after_operator(Self::signed)?)?,
                Some('%') => value.remainder(self.after_operator(Self::signed)?)?,
                _ => return Ok(value),
            };
        }
    }

    fn signed(&mut self) -> Computed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("the expression is nested deeper than {MAX_DEPTH} levels"));
        }
        let value = match self.peek() {
            Some('-') => self.after_operator(Self::signed)?.negate(),
            Some('+') => self.after_operator(Self::signed)?,
            _ => self.power()?,
        };
        self.depth -= 1;
        Ok(value)
    }

    fn power(&mut self) -> Computed {
        let base = self.atom()?;
        if self.peek() == Some('^') { base.power(self.after_operator(Self::signed)?) } else { Ok(base) }
    }

    fn atom(&mut self) -> Computed {
        match self.peek() {
            Some('(') => {
                let value = self.after_operator(Self::sum)?;
                self.expect(')')?;
                Ok(value)
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if c.is_alphabetic() => self.named(),
            _ => Err(self.unexpected("a number")),
        }
    }

    fn number(&mut self) -> Computed {
        let start = self.at;
        self.take_while(|c| c.is_ascii_digit() || c == '.');
        // An exponent, unless the `e` is the constant of something like `2e`: that is an error either way.
        if matches!(self.text.get(self.at), Some('e' | 'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some('+' | '-')) {
                self.at += 1;
            }
            self.take_while(|c| c.is_ascii_digit());
        }
        let text: String = self.text[start..self.at].iter().collect();
        if let Ok(whole) = text.parse::<i128>() {
            return Ok(Number::Whole(whole));
        }
        let value = text.parse::<f64>().map_err(|_| format!("{text:?} is not a number"))?;
        Number::finite(value, "the number")
    }

    fn named(&mut self) -> Computed {
        let start = self.at;
        self.take_while(|c| c.is_alphanumeric() || c == '_');
        let name: String = self.text[start..self.at].iter().collect::<String>().to_lowercase();
        if self.peek() != Some('(') {
            return match name.as_str() {
                "pi" | "π" => Ok(Number::Real(std::f64::consts::PI)),
                "e" => Ok(Number::Real(std::f64::consts::E)),
                _ => Err(format!("{name:?} is neither pi nor e; there are no variables here")),
            };
        }
        let mut arguments = vec![self.after_operator(Self::sum)?];
        while self.peek() == Some(',') {
            arguments.push(self.after_operator(Self::sum)?);
        }
        self.expect(')')?;
        call(&name, &arguments)
    }

    /// Takes the operator that was peeked at, and reads what follows it.
    fn after_operator(&mut self, read: fn(&mut Self) -> Computed) -> Computed {
        self.at += 1;
        read(self)
    }

    /// The next character that is not a space.
    fn peek(&mut self) -> Option<char> {
        self.take_while(char::is_whitespace);
        self.text.get(self.at).copied()
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) {
        while self.text.get(self.at).is_some_and(|&c| wanted(c)) {
            self.at += 1;
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.peek() != Some(wanted) {
            return Err(self.unexpected(&format!("{wanted:?}")));
        }
        self.at += 1;
        Ok(())
    }

    fn unexpected(&mut self, wanted: &str) -> String {
        match self.peek() {
            Some(found) => format!("expected {wanted} at character {}, found {found:?}", self.at + 1),
            None => format!("expected {wanted}, but the expression ends"),
        }
    }
}

fn call(name: &str, arguments: &[Number]) -> Computed {
    let choose = |better: fn(&f64, &f64) -> bool| {
        arguments.iter().copied().reduce(|a, b| if better(&b.real(), &a.real()) { b } else { a }).ok_or_else(String::new)
    };
    match name {
        "min" => return choose(f64::lt),
        "max" => return choose(f64::gt),
        _ => {}
    }
    let [argument] = arguments else {
        return Err(format!("{name} takes one argument"));
    };
    let (argument, x) = (*argument, argument.real());
    match (name, argument) {
        ("abs", _) if x < 0.0 => return Ok(argument.negate()),
        ("abs", _) | ("round" | "floor" | "ceil", Number::Whole(_)) => return Ok(argument),
        _ => {}
    }
    let value = match name {
        "sqrt" => x.sqrt(),
        "round" => x.round(),
        "floor" => x.floor(),
        "ceil" => x.ceil(),
        "exp" => x.exp(),
        "ln" | "log10" | "log2" if x == 0.0 => f64::NAN,
        "ln" => x.ln(),
        "log10" => x.log10(),
        "log2" => x.log2(),
        "sin" => x.sin(),
        "cos" => x.cos(),
        "tan" => x.tan(),
        "asin" => x.asin(),
        "acos" => x.acos(),
        "atan" => x.atan(),
        // `log` is one thing to some and another to others.
        _ => return Err(format!("no function {name:?}; there is: {FUNCTIONS}")),
    };
    Number::finite(value, name).map(Number::settled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(expression: &str) -> String {
        evaluate(expression).map_or_else(|error| error, |value| value.to_string())
    }

    #[test]
    fn arithmetic_follows_precedence() {
        let cases = [
            ("2 + 3 * 4", "14"),
            ("(2 + 3) * 4", "20"),
            ("-2 ^ 2", "-4"),
            ("2 ^ 3 ^ 2", "512"),
            ("2 ** -1", "0.5"),
            ("10 - 4 - 3", "3"),
            ("7 % 3", "1"),
            ("-7 % 3", "2"),
            ("--3", "3"),
            ("1e3 + .5", "1000.5"),
            ("6 × 7 ÷ 2", "21"),
        ];
        for (expression, result) in cases {
            assert_eq!(told(expression), result, "{expression}");
        }
    }

    #[test]
    fn whole_numbers_are_exact_and_floats_show_no_noise() {
        assert_eq!(told("123456789 * 987654321 * 1000003"), "121932996910528606905807");
        assert_eq!(told("2^100"), "1267650600228229401496703205376");
        assert_eq!(told("0.1 + 0.2"), "0.3");
        assert_eq!(told("1 / 3"), "0.333333333333333");
        assert_eq!(told("10 / 4"), "2.5");
        assert_eq!(told("1e300 * 10"), "1e301");
    }

    #[test]
    fn functions_and_constants() {
        let cases = [
            ("sqrt(16)", "4"),
            ("round(2.5)", "3"),
            ("abs(-3)", "3"),
            ("min(3, 1, 2)", "1"),
            ("max(3, 7/2)", "3.5"),
            ("ln(e)", "1"),
            ("log10(1000)", "3"),
            ("cos(pi)", "-1"),
            ("2 * PI", "6.28318530717959"),
        ];
        for (expression, result) in cases {
            assert_eq!(told(expression), result, "{expression}");
        }
    }

    #[test]
    fn what_has_no_value_is_told_as_an_error() {
        let cases = [
            ("1 / 0", "division by zero"),
            ("1 % 0", "division by zero"),
            ("0 ^ -1", "division by zero"),
            ("10 ^ 400", "too large"),
            ("1e999", "too large"),
            ("exp(1000)", "too large"),
            ("sqrt(-1)", "not defined"),
            ("ln(0)", "not defined"),
            ("(-8) ^ 0.5", "not defined"),
            ("2 +", "the expression ends"),
            ("", "the expression ends"),
            ("2 3", "character 3"),
            ("(1", "')'"),
            ("1.2.3", "not a number"),
            ("x + 1", "no variables"),
            ("system(1)", "no function"),
            ("log(100)", "ln, log10"),
            ("sqrt(1, 2)", "one argument"),
        ];
        for (expression, reason) in cases {
            let error = evaluate(expression).expect_err(expression);
            assert!(error.contains(reason), "{expression}: {error}");
        }
    }

    #[test]
    fn hostile_expressions_end_early() {
        for open in ["(", "-", "2^", "abs("] {
            assert!(evaluate(&open.repeat(300)).is_err(), "{open}");
        }
        assert!(evaluate(&"(".repeat(100)).unwrap_err().contains("deeper than 64"));
        assert!(evaluate(&"1+".repeat(2_000)).unwrap_err().contains("longer than 1000"));
        assert!(evaluate("9^9^9^9^9").is_err());
    }
}
