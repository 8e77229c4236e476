//! Several conversations with one model: they share its weights, each has a cache of its own.

use super::Session;
use super::ranks::Caches;
use super::recovery::Losses;
use crate::{Error, Result};

/// One of a session's conversations; the first one has the number 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conversation(pub u32);

/// A conversation that is not the one which goes on.
#[derive(Default)]
pub(super) struct Parked {
    caches: Caches,
    past: Vec<u32>,
}

impl Parked {
    /// Its devices' memory is gone: its tokens will be computed again.
    pub(super) fn lose(&mut self) {
        *self = Parked::default();
    }
}

impl Session {
    /// The conversation that all methods work on.
    pub fn conversation(&self) -> Conversation {
        self.conversation
    }

    /// A new conversation that begins as a copy of this one, what is in the cache included. This one goes on.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`] when there is no room for another cache.
    pub async fn fork(&mut self) -> Result<Conversation> {
        let parked = match self.ranks.copy_caches(self.past.len()).await {
            Ok((caches, true)) => Parked {
                caches,
                past: self.past.clone(),
            },
            Ok((caches, false)) => Parked {
                caches,
                past: Vec::new(),
            },
            Err(error) => {
                self.lose(error, &mut Losses::default())?;
                Parked::default()
            }
        };
        self.last_conversation += 1;
        let conversation = Conversation(self.last_conversation);
        self.parked.insert(conversation, parked);
        Ok(conversation)
    }

    /// Goes on with another conversation.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is none of this number; [`Error::OutOfMemory`] when its device was lost before, and now
    /// has no room.
    pub async fn switch_to(&mut self, conversation: Conversation) -> Result<()> {
        if conversation == self.conversation {
            return Ok(());
        }
        let mut other = self.parked.remove(&conversation).ok_or_else(unknown)?;
        let mut exchanged = self.ranks.exchange(&mut other.caches).await;
        if let Err(error) = exchanged {
            exchanged = self.lose(error, &mut Losses::default());
            if exchanged.is_ok() {
                other.lose();
                exchanged = self.ranks.exchange(&mut other.caches).await;
            }
        }
        if let Err(error) = exchanged {
            self.parked.insert(conversation, other);
            return Err(error);
        }
        std::mem::swap(&mut self.past, &mut other.past);
        self.parked.insert(self.conversation, other);
        self.conversation = conversation;
        Ok(())
    }

    /// Forgets what was said in a conversation; it can begin again.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is none of this number.
    pub fn forget(&mut self, conversation: Conversation) -> Result<()> {
        match self.parked.get_mut(&conversation) {
            Some(parked) => parked.past.clear(),
            None if conversation == self.conversation => self.past.clear(),
            None => return Err(unknown()),
        }
        Ok(())
    }

    /// Ends a conversation, and gives its cache back; another one goes on then, if it was this one.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is none of this number, or no other.
    pub async fn end(&mut self, conversation: Conversation) -> Result<()> {
        if conversation == self.conversation {
            let other = self.parked.keys().min_by_key(|other| other.0);
            let other = other
                .ok_or_else(|| Error::Invalid("a session has one conversation at least".into()))?;
            self.switch_to(*other).await?;
        }
        match self.parked.remove(&conversation) {
            Some(_) => Ok(()),
            None => Err(unknown()),
        }
    }
}

fn unknown() -> Error {
    Error::Invalid("there is no such conversation, or it has ended".into())
}
