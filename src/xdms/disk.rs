//! Files of the embedded XDMS: a tree that mirrors the XCAP tree, one file a document.
//!
//! Start at [`Disk::open`], [`Disk::write`]. A write is beside the old file first, synced and renamed into place, and so
//! is every directory it needs: whatever instant the process or the machine dies at, there is the old document or the
//! new one, and once [`Disk::write`] has returned it is the new one. One writer at a time. Reads no XML.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::path::{self, DocumentPath, Resource, Tree};

/// Files of writes that did not come to their end.
const NEW: &str = ".new-";
/// Files that could not be read and were written anew.
const BAD: &str = ".bad-";
/// Longest name of a file.
const LONGEST: usize = 240;

/// Why a document has no file.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Its name is longer than file systems allow.
    #[error("the name of the document is too long")]
    Name,
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// The directory of the documents.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
}

impl Disk {
    /// Makes the directory where it is missing and takes away what interrupted writes have left. Gives every document's
    /// name and file.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(super) fn open(root: PathBuf) -> io::Result<(Self, Vec<(DocumentPath, PathBuf)>)> {
        fs::create_dir_all(&root)?;
        let mut found = Vec::new();
        for (path, file) in tree(&root)? {
            let name = file.file_name().map(|n| n.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            if name.starts_with(NEW) {
                fs::remove_file(&file)?;
                continue;
            }
            match path {
                _ if name.starts_with(BAD) => {}
                Some(path) if matches!(path.tree, Tree::User(_)) => found.push((path, file)),
                _ => {
                    tracing::warn!(file = %file.display(), "not a document of the XDMS; left alone")
                }
            }
        }
        Ok((Self { root }, found))
    }

    /// Where a document is.
    fn file(&self, path: &DocumentPath) -> Result<PathBuf, Failed> {
        let mut file = self.root.join(file_name(&path.auid)?);
        match &path.tree {
            Tree::User(xui) => file.extend(["users".to_owned(), file_name(xui)?]),
            Tree::Global => file.push("global"),
        }
        for segment in &path.name {
            file.push(file_name(segment)?);
        }
        Ok(file)
    }

    /// Keeps a document; `before` is what was there. After an error it is there still.
    ///
    /// # Errors
    /// [`Failed`].
    pub(super) fn write(
        &self,
        path: &DocumentPath,
        bytes: &[u8],
        before: Option<&[u8]>,
    ) -> Result<(), Failed> {
        let file = self.file(path)?;
        self.make_directories(&file)?;
        let new = beside(&file, NEW);
        let written = fs::File::create(&new).and_then(|mut out| {
            out.write_all(bytes)?;
            out.sync_all()
        });
        if let Err(error) = written.and_then(|()| fs::rename(&new, &file)) {
            // What cannot be taken away now is at the next start.
            let _ = fs::remove_file(&new);
            return Err(error.into());
        }
        sync_directory(&file).map_err(|error| {
            undo(&file, before);
            error.into()
        })
    }

    /// Takes a document away; `before` is what was there. After an error it is there still.
    ///
    /// # Errors
    /// [`Failed`].
    pub(super) fn remove(&self, path: &DocumentPath, before: &[u8]) -> Result<(), Failed> {
        let file = self.file(path)?;
        fs::remove_file(&file)?;
        sync_directory(&file).map_err(|error| {
            undo(&file, Some(before));
            error.into()
        })
    }

    /// Puts a file that cannot be read out of the way, so that nothing of it is lost when it is written anew.
    ///
    /// # Errors
    /// [`Failed`].
    pub(super) fn set_aside(&self, path: &DocumentPath) -> Result<(), Failed> {
        let file = self.file(path)?;
        fs::rename(&file, beside(&file, BAD))?;
        Ok(sync_directory(&file)?)
    }

    /// Makes what is missing between the root and a file, and has each of it on the disk.
    fn make_directories(&self, file: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = file
            .ancestors()
            .skip(1)
            .take_while(|directory| directory.starts_with(&self.root) && !directory.is_dir())
            .collect();
        for directory in missing.into_iter().rev() {
            fs::create_dir(directory)?;
            sync_directory(directory)?;
        }
        Ok(())
    }
}

/// The state before, as well as it goes: the disk has just failed.
fn undo(file: &Path, before: Option<&[u8]>) {
    let undone = match before {
        Some(bytes) => fs::write(file, bytes),
        None => fs::remove_file(file),
    };
    if let Err(error) = undone {
        tracing::error!(file = %file.display(), %error, "a refused change of a document may be on the disk");
    }
}

fn beside(file: &Path, prefix: &str) -> PathBuf {
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    file.with_file_name(format!("{prefix}{name}"))
}

fn sync_directory(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// A segment as a file name: no separator, no leading dot, no surprise.
fn file_name(segment: &str) -> Result<String, Failed> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.@+:=;,".contains(&b);
    let mut name = path::encode(segment, plain);
    if name.starts_with('.') {
        name.replace_range(..1, "%2E");
    }
    if name.len() > LONGEST { Err(Failed::Name) } else { Ok(name) }
}

/// All files of a tree with the names they stand for, in a steady order.
pub(super) fn tree(directory: &Path) -> io::Result<Vec<(Option<DocumentPath>, PathBuf)>> {
    let mut found = Vec::new();
    let mut open: Vec<(String, PathBuf)> = vec![(String::new(), directory.to_owned())];
    while let Some((below, directory)) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = if below.is_empty() { name.into_owned() } else { format!("{below}/{name}") };
            if entry.file_type()?.is_dir() {
                open.push((path, entry.path()));
            } else {
                let resource = Resource::below_root(&path).ok();
                let document = resource.filter(|r| r.selector.is_none()).map(|r| r.document);
                found.push((document, entry.path()));
            }
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}
