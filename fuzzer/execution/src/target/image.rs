//! Recipes of disk images: a command, a script or a file.

use std::{
    fs::{self, File},
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use guest_protocol::{MAX_DISKS, RelativePath, Step, WorkloadStep};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sha2::{Digest, Sha256};
use toml::Spanned;

use super::DiskKind;

/// Size of a disk in MiB: writes beyond 1 GiB are not recorded.
pub(super) const IMAGE_MIB: RangeInclusive<u32> = 1..=1024;
/// The most bytes of a script, as reproducers carry it.
const MOST_SCRIPT_BYTES: usize = 64 << 10;

/// Recipe of the target's disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecipe {
    /// Size of each disk in MiB.
    pub size_mib: u32,
    /// Number of disks. All but the first one are zero at first.
    pub disks: u8,
    /// Kind of the disks.
    pub kind: DiskKind,
    /// Steps that run once, in a guest. What the disks hold then is their image.
    pub steps: Vec<WorkloadStep>,
    /// Source of the first disk's content.
    pub source: ImageSource,
}

/// Source of an image's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// The command that makes it, and its arguments; the image's path is appended.
    Mkfs(Vec<String>),
    /// A program that makes it.
    Script {
        /// Its name in the target's folder.
        name: String,
        /// Its text, which begins with `#!`. It is called with the image's path.
        text: String,
    },
    /// An image, perhaps compressed.
    File {
        /// Its name in the target's folder. The ending says how it is compressed: `.zst`, `.xz`, or
        /// not.
        name: String,
        /// SHA-256 of the file as it is, in hexadecimal.
        sha256: String,
        /// The file; none where it is not at hand.
        path: Option<PathBuf>,
    },
}

/// A recipe in a target's definition.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mkfs: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    script: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    size_mib: u32,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    disks: u8,
    #[serde(default, skip_serializing_if = "DiskKind::is_memory")]
    disk: DiskKind,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<WorkloadStep>,
}

fn one() -> u8 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_one(disks: &u8) -> bool {
    *disks == 1
}

impl Serialize for ImageRecipe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { size_mib, disks, kind: disk, steps, source } = self.clone();
        let (mkfs, script, text, file, sha256) = (None, None, None, None, None);
        let none = Record { mkfs, script, text, file, sha256, size_mib, disks, disk, steps };
        let record = match source {
            ImageSource::Mkfs(mkfs) => Record { mkfs: Some(mkfs), ..none },
            ImageSource::Script { name, text } => Record { script: Some(name), text: Some(text), ..none },
            ImageSource::File { name, sha256, .. } => Record { file: Some(name), sha256: Some(sha256), ..none },
        };
        record.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ImageRecipe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let record = Record::deserialize(deserializer)?;
        let Record { mkfs, script, text, file, sha256, size_mib, disks, disk: kind, steps } = record;
        let source = match (mkfs, script, text, file, sha256) {
            (Some(mkfs), None, None, None, None) => ImageSource::Mkfs(mkfs),
            (None, Some(name), Some(text), None, None) => ImageSource::Script { name, text },
            (None, None, None, Some(name), Some(sha256)) => ImageSource::File { name, sha256, path: None },
            _ => {
                let reason = "an image is made by `mkfs`, a `script` with its `text`, or a `file` with its `sha256`";
                return Err(D::Error::custom(reason));
            }
        };
        Ok(Self { size_mib, disks, kind, steps, source })
    }
}

impl ImageRecipe {
    /// Says what is wrong with it.
    pub(super) fn defect(&self) -> Option<String> {
        if !(1..=MAX_DISKS).contains(&self.disks) {
            return Some(format!("disks is {}, possible are 1 to {MAX_DISKS}", self.disks));
        }
        let copies = self.steps.iter().filter(|step| matches!(step.step, Step::CrashCopy {})).count();
        if copies > 1 {
            return Some("two steps crash-copy: an image is taken once".to_owned());
        }
        if !IMAGE_MIB.contains(&self.size_mib) {
            let (least, most) = (IMAGE_MIB.start(), IMAGE_MIB.end());
            return Some(format!("size_mib is {}, possible are {least} to {most}", self.size_mib));
        }
        if let ImageSource::Script { name, .. } | ImageSource::File { name, .. } = &self.source
            && name.parse::<RelativePath>().is_err()
        {
            return Some(format!("the image's source {name:?} is not a plain path below the target's folder"));
        }
        match &self.source {
            ImageSource::Mkfs(mkfs) => {
                mkfs.first().is_none_or(String::is_empty).then(|| "mkfs names no command".to_owned())
            }
            ImageSource::Script { name, text } if text.len() > MOST_SCRIPT_BYTES => {
                Some(format!("the script {name} has {} bytes, at most {MOST_SCRIPT_BYTES} are possible", text.len()))
            }
            ImageSource::Script { name, text } => (!text.starts_with("#!"))
                .then(|| format!("the script {name} does not begin with #! and the program that runs it")),
            ImageSource::File { .. } => None,
        }
    }

    /// Says whether making the image runs nothing but a `mkfs.NAME` of this machine, on the image
    /// alone: no argument can name another file.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        match &self.source {
            ImageSource::Mkfs(mkfs) => {
                mkfs.first().is_some_and(|command| command.starts_with("mkfs."))
                    && mkfs.iter().all(|word| !word.contains('/') && !word.contains(".."))
            }
            ImageSource::Script { .. } => false,
            ImageSource::File { .. } => true,
        }
    }

    /// Looks in `folders` for the file that the image is made of, if it is made of one that is not
    /// at hand. A file counts when it has the right content.
    ///
    /// # Errors
    ///
    /// No folder has it: a sentence that says which file, and where it was looked for.
    pub fn find_file(&mut self, folders: &[&Path]) -> Result<(), String> {
        let ImageSource::File { name, sha256, path: path @ None } = &mut self.source else { return Ok(()) };
        let candidates: Vec<PathBuf> = folders.iter().map(|folder| folder.join(&*name)).collect();
        *path = candidates.iter().find(|file| checksum(file).is_ok_and(|sum| sum == *sha256)).cloned();
        if path.is_some() {
            return Ok(());
        }
        let looked: Vec<_> = candidates.iter().map(|file| file.display().to_string()).collect();
        Err(format!(
            "the target's disk is made of the file {name} with the SHA-256 {sha256}, which is not at hand: put it to \
             one of {}",
            looked.join(", ")
        ))
    }
}

/// `[image]` of a target's file, and the part of it that a variant changes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageText {
    mkfs: Option<Vec<String>>,
    script: Option<RelativePath>,
    file: Option<RelativePath>,
    size_mib: Option<u32>,
    disks: Option<u8>,
    disk: Option<DiskKind>,
    #[serde(default)]
    pub(super) steps: Vec<Spanned<toml::Table>>,
}

impl ImageText {
    /// Gives the image with what `change` says in the place of what this says.
    pub(super) fn changed(&self, change: &Self) -> Self {
        let size_mib = change.size_mib.or(self.size_mib);
        let (disks, disk) = (change.disks.or(self.disks), change.disk.or(self.disk));
        let source = if change.sources() > 0 { change } else { self };
        let steps = if change.steps.is_empty() { &self.steps } else { &change.steps };
        Self { size_mib, disks, disk, steps: steps.clone(), ..source.clone() }
    }

    fn sources(&self) -> usize {
        [self.mkfs.is_some(), self.script.is_some(), self.file.is_some()].into_iter().filter(|there| *there).count()
    }

    /// Makes the recipe of it for the target in `folder`, of which `steps` are the steps.
    pub(super) fn recipe(self, folder: &Path, steps: Vec<WorkloadStep>) -> Result<ImageRecipe, String> {
        if self.sources() != 1 {
            return Err("an image is made by one of mkfs, script and file".to_owned());
        }
        let size_mib = self.size_mib.ok_or("size_mib is missing")?;
        let at = |name: &RelativePath| folder.join(name.as_str());
        let source = if let Some(name) = self.script {
            let text = fs::read_to_string(at(&name));
            let text = text.map_err(|error| format!("cannot read the script {}: {error}", at(&name).display()))?;
            ImageSource::Script { name: name.as_str().to_owned(), text }
        } else if let Some(name) = self.file {
            let path = at(&name);
            let sha256 =
                checksum(&path).map_err(|error| format!("cannot read the image {}: {error}", path.display()))?;
            ImageSource::File { name: name.as_str().to_owned(), sha256, path: Some(path) }
        } else {
            ImageSource::Mkfs(self.mkfs.unwrap_or_default())
        };
        let (disks, kind) = (self.disks.unwrap_or(1), self.disk.unwrap_or_default());
        let recipe = ImageRecipe { size_mib, disks, kind, steps, source };
        recipe.defect().map_or(Ok(recipe), Err)
    }
}

/// SHA-256 of the file, in hexadecimal. Others than regular files may have no end.
fn checksum(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(text: &str, folder: &Path) -> Result<ImageRecipe, String> {
        toml::from_str::<ImageText>(text).map_err(|error| error.message().to_owned())?.recipe(folder, Vec::new())
    }

    #[test]
    fn an_image_has_one_source() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("make"), "#!/bin/sh\n").unwrap();
        fs::write(folder.path().join("plain"), "no script").unwrap();
        let read = |text: &str| recipe(text, folder.path());
        assert!(read("mkfs = ['mkfs.xfs']\nsize_mib = 320").unwrap().is_harmless());
        assert!(!read("mkfs = ['mkfs.ext4', '-d', '/etc']\nsize_mib = 320").unwrap().is_harmless());
        assert!(!read("mkfs = ['./mkfs.ext4']\nsize_mib = 320").unwrap().is_harmless());
        let script = read("script = 'make'\nsize_mib = 1").unwrap();
        assert!(!script.is_harmless());
        let file = read("file = 'plain'\nsize_mib = 1").unwrap();
        for (text, reason) in [
            ("size_mib = 1", "one of mkfs, script and file"),
            ("mkfs = ['a']\nfile = 'plain'\nsize_mib = 1", "one of mkfs, script and file"),
            ("mkfs = ['a']", "size_mib is missing"),
            ("mkfs = ['']\nsize_mib = 1", "names no command"),
            ("mkfs = ['a']\nsize_mib = 1025", "possible are 1 to 1024"),
            ("mkfs = ['a']\nsize_mib = 1\ndisks = 5", "disks is 5, possible are 1 to 4"),
            ("script = 'plain'\nsize_mib = 1", "does not begin with #!"),
            ("script = 'none'\nsize_mib = 1", "cannot read the script"),
            ("file = 'none'\nsize_mib = 1", "cannot read the image"),
            ("file = '../plain'\nsize_mib = 1", "not a plain path"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
        for recipe in [script, file] {
            let text = serde_json::to_string(&recipe).unwrap();
            let again: ImageRecipe = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&again).unwrap(), text);
        }
    }

    #[test]
    fn a_file_is_known_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        for (folder, content) in [(&one, "wrong"), (&two, "right")] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("disk"), content).unwrap();
        }
        let written = serde_json::to_string(&recipe("file = 'disk'\nsize_mib = 1", &two).unwrap()).unwrap();
        let mut read: ImageRecipe = serde_json::from_str(&written).unwrap();
        let missing = read.find_file(&[&one]).unwrap_err();
        assert!(missing.contains("the file disk") && missing.contains("one/disk"), "{missing}");
        read.find_file(&[&one, &two]).unwrap();
        let ImageSource::File { path, .. } = read.source else { panic!("no file") };
        assert_eq!(path.unwrap(), two.join("disk"));
    }

    #[test]
    fn a_source_is_a_regular_file_below_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("disk")).unwrap();
        let refused = recipe("file = 'disk'\nsize_mib = 1", folder.path()).unwrap_err();
        assert!(refused.contains("no regular file"), "{refused}");
        for name in ["/dev/zero", "../disk", "a/../../disk", "."] {
            for rest in [("file", "sha256", "00"), ("script", "text", "#!/bin/sh")] {
                let (kind, key, value) = rest;
                let written = serde_json::json!({ kind: name, key: value, "size_mib": 1 });
                let read: ImageRecipe = serde_json::from_value(written).unwrap();
                let defect = read.defect().unwrap();
                assert!(defect.contains(name) && defect.contains("below the target's folder"), "{defect}");
            }
        }
        let written = serde_json::json!({ "file": "disk", "sha256": "00", "size_mib": 1 });
        let mut read: ImageRecipe = serde_json::from_value(written).unwrap();
        assert_eq!(read.defect(), None);
        assert!(read.find_file(&[folder.path()]).is_err(), "a folder is no image");
    }

    #[test]
    fn a_variant_changes_a_part_of_an_image() {
        let text = |text: &str| toml::from_str::<ImageText>(text).unwrap();
        let image = text("mkfs = ['mkfs.btrfs']\nsize_mib = 128");
        let changed = image.changed(&text("mkfs = ['mkfs.btrfs', '-q']"));
        assert_eq!((changed.mkfs.unwrap().len(), changed.size_mib), (2, Some(128)));
        let changed = image.changed(&text("size_mib = 300"));
        assert_eq!((changed.mkfs.unwrap().len(), changed.size_mib), (1, Some(300)));
        let changed = image.changed(&text("disk = 'virtio'")).changed(&text("disks = 2"));
        assert_eq!((changed.disk, changed.mkfs.unwrap().len()), (Some(DiskKind::Virtio), 1));
        let changed = image.changed(&text("file = 'disk'"));
        assert_eq!((changed.mkfs, changed.file.is_some()), (None, true));
    }
}
