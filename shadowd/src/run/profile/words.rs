//! What members tell each other of a profile, and what of it is believed.

use tracing::warn;

use super::keeper::Keeper;
use super::letter::{Body, Letter};
use super::look::Looker;
use crate::decide::profile::codec;
use crate::facts::{BootTime, Name, Place, Signed, Version};
use crate::link::signature::verify;

impl Keeper {
    /// A member says something. What it may not say, and what is wrong, changes nothing.
    pub fn on_letter(&mut self, from: &Name, body: Body, now: BootTime) -> Result<(), String> {
        if !self.members.contains_key(from) {
            return Err(format!(
                "{from} is no member of the group {}",
                self.group.name
            ));
        }
        let from_owner = self.owner.as_ref() == Some(from);
        match body {
            Body::Digest(digest) if from_owner && self.rules.learn => {
                self.learner.on_digest(&digest)
            }
            Body::Content(content) if from_owner => self.learner.on_inventory(&content),
            Body::Key(key) if from_owner => self.adopt(key),
            Body::Beside(beside) if from_owner => self.beside.on_told(beside),
            // The group moved meanwhile: what an earlier owner says is too late.
            Body::Digest(_) | Body::Content(_) | Body::Key(_) | Body::Beside(_) => {}
            Body::Head { number, id } => {
                self.in_line(number, from_owner, now)?;
                self.replica.on_head(from, Place { number, id }, now);
            }
            Body::Ask(id) => self.replica.on_ask(from, id),
            Body::Version(signed) => {
                let version = self.believed(&signed)?;
                let by_owner = from_owner || self.is_owners(version.author);
                self.in_line(version.number, by_owner, now)?;
                self.keep(&signed, &version, now)?;
            }
            Body::AskFile { path, hash } => {
                let bytes = self.content_for(&path, &hash, now)?;
                self.tell(from, &Body::File(bytes));
            }
            Body::File(bytes) => {
                self.keep_content(&bytes);
                self.provisioner.on_content(bytes);
            }
        }
        self.act(now);
        Ok(())
    }

    /// A version that a member made, as its signature shows, of this group.
    pub fn believed(&self, signed: &Signed) -> Result<Version, String> {
        let version = codec::decode(&signed.bytes).map_err(|error| error.to_string())?;
        let author = version.author;
        if !self.is_author(author) {
            return Err(format!("{author} made it, which is no member of the group"));
        }
        if version.group != self.group.name {
            return Err(format!("it is of the group {}", version.group));
        }
        verify(signed, author).map_err(|error| error.to_string())?;
        Ok(version)
    }

    /// The owner's key counts: hashes under another cannot be compared.
    fn adopt(&mut self, key: [u8; 32]) {
        if key != self.key {
            self.key = key;
            self.looker = Looker::new(&self.rules, key);
            let name = &self.group.name;
            let kept = self.common.store().keep_key(name, &key);
            if let Err(error) = kept {
                warn!(group = %name, %error, "the group's key could not be stored");
            }
        }
    }

    pub(super) fn tell_all(&self, body: &Body) {
        for to in self.members.keys() {
            self.tell(to, body);
        }
    }

    /// What finds no room is said again later.
    pub(super) fn tell(&self, to: &Name, body: &Body) {
        let letter = Letter {
            group: self.group.name.clone(),
            body: body.clone(),
        };
        if let Some(bytes) = letter.to_bytes() {
            self.common.post.send(to, bytes);
        }
    }
}
