//! What the command wants of the library, as text in an environment variable: `children=1,max=1048576,dir=/tmp/objcg-x`.
//!
//! The folder comes last and takes the rest, commas and all.

use core::fmt;

/// What a group is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// The process.
    Process,
    /// Each thread.
    Thread,
}

/// How a program is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order<'a> {
    /// The limit in bytes.
    pub max: Option<u64>,
    /// The soft limit in bytes.
    pub high: Option<u64>,
    /// What gets a group of its own.
    pub group_by: GroupBy,
    /// Whether processes that the program starts run so as well, each with the limits.
    pub with_children: bool,
    /// The folder for reports.
    pub folder: &'a str,
}

/// The variable does not hold an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseOrderError;

impl fmt::Display for ParseOrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an order of this version of objcg run")
    }
}

impl core::error::Error for ParseOrderError {}

impl<'a> Order<'a> {
    /// The order in a variable's text.
    ///
    /// # Errors
    /// See [`ParseOrderError`].
    pub fn parse(text: &'a str) -> Result<Order<'a>, ParseOrderError> {
        let mut order = Order { max: None, high: None, group_by: GroupBy::Process, with_children: false, folder: "" };
        let mut rest = text;
        loop {
            if let Some(folder) = rest.strip_prefix("dir=") {
                return Ok(Order { folder, ..order });
            }
            let (item, behind) = rest.split_once(',').ok_or(ParseOrderError)?;
            let number = |digits: &str| digits.parse().map_err(|_| ParseOrderError);
            match item.split_once('=') {
                Some(("max", digits)) => order.max = Some(number(digits)?),
                Some(("high", digits)) => order.high = Some(number(digits)?),
                Some(("group-by", "thread")) => order.group_by = GroupBy::Thread,
                Some(("children", "1")) => order.with_children = true,
                _ => return Err(ParseOrderError),
            }
            rest = behind;
        }
    }
}

impl fmt::Display for Order<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(max) = self.max {
            write!(f, "max={max},")?;
        }
        if let Some(high) = self.high {
            write!(f, "high={high},")?;
        }
        if self.group_by == GroupBy::Thread {
            f.write_str("group-by=thread,")?;
        }
        if self.with_children {
            f.write_str("children=1,")?;
        }
        write!(f, "dir={}", self.folder)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::{GroupBy, Order, ParseOrderError};

    #[test]
    fn orders_come_back_from_their_text() {
        let full = Order {
            max: Some(u64::MAX),
            high: Some(1),
            group_by: GroupBy::Thread,
            with_children: true,
            folder: "/tmp/a,dir=b, c",
        };
        let bare = Order { max: None, high: None, group_by: GroupBy::Process, with_children: false, folder: "x" };
        for order in [full, bare] {
            assert_eq!(Order::parse(&order.to_string()), Ok(order));
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "max=1", "max=x,dir=/tmp", "max=-1,dir=/tmp", "colour=red,dir=/tmp", "children=2,dir=/"] {
            assert_eq!(Order::parse(text), Err(ParseOrderError), "{text:?}");
        }
    }
}
