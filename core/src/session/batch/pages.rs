//! Which pages of the cache belong to whom, and which hold what a new prompt begins with.
//!
//! A full page is known by its tokens and by the page before it, so that a prompt finds those of earlier ones
//! (arXiv:2312.07104, section 3, by pages). Pages that nobody uses stay until their room is needed, the one not used for the
//! longest time first.

use std::collections::{BTreeMap, HashMap};

use crate::kernels::pages::PAGE;

/// A page of the cache.
pub(super) type Page = u32;

/// What comes before a page: 0 for nothing, else the number of a page with its content.
pub(super) type Before = u64;

/// See the [module](self).
pub(super) struct Pages {
    /// How many sequences use each page.
    users: Vec<u32>,
    free: Vec<Page>,
    known: HashMap<Page, Known>,
    /// Known pages by what comes before them.
    behind: HashMap<Before, Vec<Page>>,
    /// Known pages that nobody uses, by when that began.
    idle: BTreeMap<u64, Page>,
    idle_since: HashMap<Page, u64>,
    clock: u64,
}

/// What a page holds.
struct Known {
    before: Before,
    /// Its own number, for pages behind it.
    number: Before,
    tokens: Vec<u32>,
}

/// The pages that hold what a prompt begins with.
pub(super) struct Prefix {
    /// Whole pages.
    pub(super) pages: Vec<Page>,
    /// What they are to pages behind them.
    pub(super) last: Before,
    /// A page whose first rows, so many of them, come next.
    pub(super) part: Option<(Page, usize)>,
}

impl Pages {
    /// `count` pages, of which the first is never given out.
    pub(super) fn new(count: usize) -> Self {
        Pages {
            users: vec![0; count],
            free: (1..count as Page).rev().collect(),
            known: HashMap::new(),
            behind: HashMap::new(),
            idle: BTreeMap::new(),
            idle_since: HashMap::new(),
            clock: 0,
        }
    }

    /// How many can be given out in all.
    pub(super) fn count(&self) -> usize {
        self.users.len() - 1
    }

    /// How many can be given out now.
    pub(super) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Does `page` hold something, and nobody uses it?
    pub(super) fn is_idle(&self, page: Page) -> bool {
        self.idle_since.contains_key(&page)
    }

    /// The longest beginning of `tokens` that is there.
    pub(super) fn find(&self, tokens: &[u32]) -> Prefix {
        let mut prefix = Prefix {
            pages: Vec::new(),
            last: 0,
            part: None,
        };
        let none = Vec::new();
        for chunk in tokens.chunks(PAGE) {
            let behind = self.behind.get(&prefix.last).unwrap_or(&none);
            let same = |page: &Page| {
                let pairs = self.known[page].tokens.iter().zip(chunk);
                pairs.take_while(|(a, b)| a == b).count()
            };
            let Some(best) = behind.iter().max_by_key(|page| same(page)) else {
                break;
            };
            match same(best) {
                PAGE => {
                    prefix.pages.push(*best);
                    prefix.last = self.known[best].number;
                }
                rows => {
                    prefix.part = (rows > 0).then_some((*best, rows));
                    break;
                }
            }
        }
        prefix
    }

    /// One more sequence uses `page`.
    pub(super) fn share(&mut self, page: Page) {
        self.users[page as usize] += 1;
        if let Some(since) = self.idle_since.remove(&page) {
            self.idle.remove(&since);
        }
    }

    /// A page for one sequence, if there is one.
    pub(super) fn take(&mut self) -> Option<Page> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => {
                let (_, page) = self.idle.pop_first()?;
                self.idle_since.remove(&page);
                self.forget(page);
                page
            }
        };
        self.users[page as usize] = 1;
        Some(page)
    }

    /// A sequence no longer uses `page`.
    pub(super) fn release(&mut self, page: Page) {
        let users = &mut self.users[page as usize];
        *users -= 1;
        if *users > 0 {
            return;
        }
        if self.known.contains_key(&page) {
            self.clock += 1;
            self.idle.insert(self.clock, page);
            self.idle_since.insert(page, self.clock);
        } else {
            self.free.push(page);
        }
    }

    /// `page` holds `tokens` behind `before`: what it is to pages behind it. A page that was known to hold the same
    /// stays the one that is found.
    pub(super) fn know(&mut self, page: Page, before: Before, tokens: &[u32]) -> Before {
        let behind = self.behind.entry(before).or_default();
        let same = |other: &&Page| self.known[*other].tokens == tokens;
        if let Some(other) = behind.iter().find(same) {
            return self.known[other].number;
        }
        behind.push(page);
        self.clock += 1;
        let known = Known {
            before,
            number: self.clock,
            tokens: tokens.to_vec(),
        };
        self.known.insert(page, known);
        self.clock
    }

    /// What `page` holds is no longer what it was known to hold.
    pub(super) fn forget(&mut self, page: Page) {
        let Some(known) = self.known.remove(&page) else {
            return;
        };
        if let Some(behind) = self.behind.get_mut(&known.before) {
            behind.retain(|other| *other != page);
            if behind.is_empty() {
                self.behind.remove(&known.before);
            }
        }
        if let Some(since) = self.idle_since.remove(&page) {
            self.idle.remove(&since);
            self.free.push(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(n: usize) -> Vec<u32> {
        (0..n as u32).collect()
    }

    /// A sequence of these tokens that has ended.
    fn said(pages: &mut Pages, tokens: &[u32]) -> Vec<Page> {
        let found = pages.find(tokens);
        found.pages.iter().for_each(|page| pages.share(*page));
        let (mut own, mut last) = (found.pages, found.last);
        for chunk in tokens.chunks(PAGE).skip(own.len()) {
            let page = pages.take().unwrap();
            last = pages.know(page, last, chunk);
            own.push(page);
        }
        own.iter().rev().for_each(|page| pages.release(*page));
        own
    }

    #[test]
    fn a_prompt_finds_pages_of_an_earlier_one() {
        let mut pages = Pages::new(10);
        let own = said(&mut pages, &tokens(40));
        assert_eq!((own.len(), pages.available(), pages.count()), (3, 9, 9));
        let found = pages.find(&tokens(100));
        assert_eq!(found.pages, own[..2]);
        assert_eq!(found.part, Some((own[2], 8)));
        let mut other = tokens(40);
        other[20] = 7;
        let found = pages.find(&other);
        assert_eq!(
            (found.pages, found.part),
            (own[..1].to_vec(), Some((own[1], 4)))
        );
        assert!(pages.find(&other[1..]).part.is_none());
    }

    #[test]
    fn the_same_content_behind_others_is_another_page() {
        let mut pages = Pages::new(10);
        let mut twice = tokens(16);
        twice.extend(tokens(16));
        let own = said(&mut pages, &twice);
        assert_eq!(pages.find(&twice).pages, own);
        assert_eq!(pages.find(&tokens(16)).pages, own[..1]);
    }

    #[test]
    fn the_end_of_what_was_not_used_for_longest_goes_first() {
        let mut pages = Pages::new(5);
        let first = said(&mut pages, &tokens(48));
        pages.share(first[0]);
        // One is free; then the first sequence's last page goes, and its second one.
        assert_eq!(pages.available(), 3);
        let taken: Vec<_> = (0..3).map(|_| pages.take().unwrap()).collect();
        assert_eq!(taken[1..], [first[2], first[1]]);
        assert_eq!(pages.take(), None);
        assert_eq!(pages.find(&tokens(48)).pages, first[..1]);
        taken.iter().for_each(|page| pages.release(*page));
        pages.release(first[0]);
        assert_eq!(pages.available(), 4);
    }

    #[test]
    fn what_is_forgotten_is_free() {
        let mut pages = Pages::new(4);
        let own = said(&mut pages, &tokens(32));
        pages.forget(own[1]);
        assert_eq!(pages.find(&tokens(32)).pages, own[..1]);
        assert_eq!(pages.available(), 3);
        assert_eq!((0..3).filter_map(|_| pages.take()).count(), 3);
    }
}
