//! Pages of lists: opaque tokens that carry the last key of a page, and a hash of the list and its filter, so that a token
//! of another list is refused and not misread.

use xxhash_rust::xxh3::xxh3_64;

use crate::domain::{At, Faults};
use crate::limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};
use crate::store::Listed;

/// A page as a request asks for it.
#[derive(Clone, Debug, Default)]
pub struct PageRequest {
    /// Items at most; 0 means the default, more than the maximum is clamped.
    pub size: i64,
    /// The token of the page before; empty for the first page.
    pub token: String,
}

/// Some items of a list, and where the next page begins.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The names, numbers or ids of those that cannot be read, since they are damaged.
    pub unreachable: Vec<String>,
    /// Empty on the last page.
    pub next_token: String,
}

/// A page asked of a certain list: its size, and the key to begin behind.
pub(super) struct PageOf {
    list: u64,
    pub(super) size: usize,
    pub(super) after: Option<String>,
}

impl PageRequest {
    /// Checks the size and the token against `list`, which names the list and its filter.
    pub(super) fn of(&self, list: &str) -> Result<PageOf, Faults> {
        let mut faults = Faults::new();
        let list = xxh3_64(list.as_bytes());
        let size = faults.whole(At::ROOT.field("page_size"), self.size, 0..=i64::from(i32::MAX));
        let after = match self.token.as_str() {
            "" => None,
            token => {
                let key = decode(token, list);
                if key.is_none() {
                    let message =
                        "is not a token of this list with this filter; use next_page_token of its page before";
                    faults.add(At::ROOT.field("page_token"), message);
                }
                key
            }
        };
        let size = size.map(|size| if size == 0 { PAGE_SIZE_DEFAULT } else { PAGE_SIZE_MAX.min(size as usize) });
        faults.finish(size.map(|size| PageOf { list, size, after }))
    }
}

impl PageOf {
    /// How many items to read: one more than the page, which tells whether there is another.
    pub(super) fn read_limit(&self) -> usize {
        self.size + 1
    }

    /// The page out of the entries read.
    pub(super) fn cut<T>(&self, mut entries: Vec<Listed<T>>, key: impl Fn(&T) -> String) -> Page<T> {
        let is_last = entries.len() <= self.size;
        entries.truncate(self.size);
        let next_token = match entries.last() {
            Some(Listed::Item(item)) if !is_last => encode(&key(item), self.list),
            Some(Listed::Unreachable(key)) if !is_last => encode(key, self.list),
            _ => String::new(),
        };
        let mut page = Page { items: Vec::with_capacity(entries.len()), unreachable: Vec::new(), next_token };
        for entry in entries {
            match entry {
                Listed::Item(item) => page.items.push(item),
                Listed::Unreachable(key) => page.unreachable.push(key),
            }
        }
        page
    }
}

impl<T> Page<T> {
    /// The same page of other views of its items.
    pub(super) fn map<U>(self, view: impl FnMut(T) -> U) -> Page<U> {
        let Self { items, unreachable, next_token } = self;
        Page { items: items.into_iter().map(view).collect(), unreachable, next_token }
    }
}

fn encode(key: &str, list: u64) -> String {
    let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{list:016x}{hex}")
}

fn decode(token: &str, list: u64) -> Option<String> {
    let (of, hex) = token.split_at_checked(16)?;
    if u64::from_str_radix(of, 16).ok()? != list || !hex.is_ascii() || hex.len() % 2 != 0 {
        return None;
    }
    let byte = |index| u8::from_str_radix(&hex[index..index + 2], 16).ok();
    String::from_utf8((0..hex.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_on_in_its_own_list_and_in_no_other() {
        let first = PageRequest { size: 2, token: String::new() }.of("models").unwrap();
        let page = first.cut(["a", "b", "c"].map(Listed::Item).into(), |item| (*item).to_owned());
        assert_eq!(page.items, ["a", "b"]);
        let next = PageRequest { size: 2, token: page.next_token.clone() };
        assert_eq!(next.of("models").unwrap().after.as_deref(), Some("b"));
        assert!(next.of("jobs").is_err());
        for token in ["x", "zz", &page.next_token[1..], &format!("{}é", page.next_token)] {
            assert!(PageRequest { size: 0, token: token.to_owned() }.of("models").is_err(), "{token}");
        }
    }

    #[test]
    fn what_cannot_be_read_has_its_place_in_a_page() {
        let request = PageRequest { size: 2, token: String::new() };
        let entries = vec![Listed::Item("a"), Listed::Unreachable("b".to_owned()), Listed::Item("c")];
        let page = request.of("models").unwrap().cut(entries, |item| (*item).to_owned());
        assert_eq!((page.items, page.unreachable), (vec!["a"], vec!["b".to_owned()]));
        let next = PageRequest { size: 2, token: page.next_token };
        assert_eq!(next.of("models").unwrap().after.as_deref(), Some("b"));
    }

    #[test]
    fn sizes_have_a_default_and_are_clamped() {
        let size = |size| PageRequest { size, token: String::new() }.of("models").map(|page| page.size);
        assert_eq!(size(0), Ok(PAGE_SIZE_DEFAULT));
        assert_eq!(size(1_000_000), Ok(PAGE_SIZE_MAX));
        assert!(size(-1).is_err());
    }
}
