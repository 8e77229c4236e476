//! Who comes next: clients in turn, each one's requests in their order.

use std::collections::VecDeque;

use super::sequence::Sequence;

/// Answers that wait.
#[derive(Default)]
pub(super) struct Queue {
    /// Those that had been begun, and go on before others begin.
    back: VecDeque<Sequence>,
    /// By client; the first one's turn is next, and none is empty.
    clients: VecDeque<(u64, VecDeque<Sequence>)>,
}

impl Queue {
    pub(super) fn add(&mut self, client: u64, sequence: Sequence) {
        match self.clients.iter_mut().find(|(other, _)| *other == client) {
            Some((_, waiting)) => waiting.push_back(sequence),
            None => self.clients.push_back((client, VecDeque::from([sequence]))),
        }
    }

    /// One that was begun before all others that were put back.
    pub(super) fn put_back(&mut self, sequence: Sequence) {
        self.back.push_front(sequence);
    }

    /// The one that comes next.
    pub(super) fn peek(&self) -> Option<&Sequence> {
        let client = self.clients.front();
        self.back.front().or_else(|| client?.1.front())
    }

    /// Takes the one that comes next.
    pub(super) fn next(&mut self) -> Option<Sequence> {
        if let Some(sequence) = self.back.pop_front() {
            return Some(sequence);
        }
        let (client, mut waiting) = self.clients.pop_front()?;
        let sequence = waiting.pop_front();
        if !waiting.is_empty() {
            self.clients.push_back((client, waiting));
        }
        sequence
    }

    pub(super) fn len(&self) -> usize {
        let waiting = self.clients.iter().map(|(_, waiting)| waiting.len());
        self.back.len() + waiting.sum::<usize>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.back.is_empty() && self.clients.is_empty()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Sequence> {
        let clients = self.clients.iter_mut();
        (self.back.iter_mut()).chain(clients.flat_map(|(_, waiting)| waiting.iter_mut()))
    }

    pub(super) fn take_cancelled(&mut self) -> Vec<Sequence> {
        let mut taken = Vec::new();
        let lists = self.clients.iter_mut().map(|(_, waiting)| waiting);
        for list in std::iter::once(&mut self.back).chain(lists) {
            let (cancelled, others) = std::mem::take(list)
                .into_iter()
                .partition(|s: &Sequence| s.cancelled);
            *list = others;
            let cancelled: VecDeque<Sequence> = cancelled;
            taken.extend(cancelled);
        }
        self.clients.retain(|(_, waiting)| !waiting.is_empty());
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::GenerateOptions;
    use crate::session::batch::Request;

    fn sequence(request: u64) -> Sequence {
        Sequence::new(Request(request), &[1], GenerateOptions::default(), None).unwrap()
    }

    fn all(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.next())
            .map(|s| s.request.0)
            .collect()
    }

    #[test]
    fn clients_come_in_turn() {
        let mut queue = Queue::default();
        for (client, request) in [(1, 1), (1, 2), (1, 3), (2, 4), (3, 5), (2, 6)] {
            queue.add(client, sequence(request));
        }
        assert_eq!((queue.len(), queue.peek().unwrap().request.0), (6, 1));
        assert_eq!(all(&mut queue), [1, 4, 5, 2, 6, 3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn those_put_back_come_first_in_the_order_in_which_they_were_begun() {
        let mut queue = Queue::default();
        queue.add(1, sequence(9));
        // The one begun last is sent away first.
        [3, 2, 1]
            .into_iter()
            .for_each(|request| queue.put_back(sequence(request)));
        queue
            .iter_mut()
            .filter(|s| s.request.0 == 2)
            .for_each(|s| s.cancelled = true);
        assert_eq!(queue.take_cancelled().len(), 1);
        assert_eq!(all(&mut queue), [1, 3, 9]);
    }
}
