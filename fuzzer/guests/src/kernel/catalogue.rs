//! `kernels/kernels.toml`: the kernels that can be built, and all that goes into each.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    KernelError, fragment,
    source::{Source, SourceEntry, read, read_patches},
    tools::{compiler, linker, type_writer},
};
use files::{TextFile, TextFileError};

/// Part of every cache key: to be raised when the way of building changes so that the kernel
/// or what is kept of it differs.
const RECIPE: &str = "9";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogueFile {
    source: BTreeMap<String, SourceEntry>,
    kernel: BTreeMap<String, KernelEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KernelEntry {
    source: String,
    configs: Vec<PathBuf>,
    selftest: PathBuf,
    objects: u32,
    #[serde(default)]
    options: String,
    explorer: Option<String>,
    #[serde(default)]
    patches: Vec<PathBuf>,
    #[serde(default)]
    on_request: bool,
}

/// The kernels of a checkout.
#[derive(Clone, Debug)]
pub struct Catalogue {
    kernels: Vec<Kernel>,
    sources: BTreeMap<String, Source>,
}

/// One kernel that can be built, with the content of everything that goes into it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its name for `--kernel`.
    pub name: String,
    /// The tree that it is built from, with the kernel's own patches behind the tree's.
    pub source: Source,
    /// The Kconfig fragments, one after the other, on top of `allnoconfig`.
    pub config: String,
    /// Files of `drivers/fuzz_selftest`: names and texts.
    pub selftest: BTreeMap<String, String>,
    /// Files of the module `slots`: names and texts.
    pub slots: BTreeMap<String, String>,
    /// Objects that a build compiles, measured; for the progress report only.
    pub objects: u32,
    /// Options of its command line, besides those of every guest.
    pub options: String,
    /// The kernel that explores for this one, because it is faster.
    pub explorer: Option<String>,
    /// Whether it is built only when somebody names it, and not where all are.
    pub on_request: bool,
}

impl Catalogue {
    /// Reads `kernels/kernels.toml` of the checkout `root`, and the files that it names.
    ///
    /// # Errors
    ///
    /// A file is missing or cannot be understood: names it, with the line where there is one.
    pub fn load(root: &Path) -> Result<Self, KernelError> {
        let folder = root.join("kernels");
        let file: CatalogueFile = TextFile::read(&folder.join("kernels.toml"))?.toml()?;
        let sources = file.source.into_iter().map(|(name, entry)| {
            let source = Source::load(&folder, &name, entry)?;
            Ok((name, source))
        });
        let sources = sources.collect::<Result<_, KernelError>>()?;
        let kernels = file.kernel.into_iter().map(|(name, entry)| Kernel::load(&folder, name, entry, &sources));
        Ok(Self { kernels: kernels.collect::<Result<_, _>>()?, sources })
    }

    /// All sources, sorted by name.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.values()
    }

    /// All kernels, sorted by name.
    #[must_use]
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// The kernel `name`.
    ///
    /// # Errors
    ///
    /// There is none of that name: names those that there are.
    pub fn get(&self, name: &str) -> Result<&Kernel, KernelError> {
        self.kernels.iter().find(|kernel| kernel.name == name).ok_or_else(|| KernelError::Unknown {
            name: name.to_owned(),
            known: self.kernels.iter().map(|kernel| kernel.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

impl Kernel {
    fn load(
        folder: &Path,
        name: String,
        entry: KernelEntry,
        sources: &BTreeMap<String, Source>,
    ) -> Result<Self, KernelError> {
        let refuse = |reason: &str| KernelError::Entry { entry: format!("kernel {name}"), reason: reason.to_owned() };
        if name.is_empty()
            || !name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
            || name.starts_with('.')
        {
            return Err(refuse("a name has only letters, digits, '.', '-' and '_', and does not start with '.'"));
        }
        let source = sources.get(&entry.source);
        let source = source.ok_or_else(|| refuse(&format!("there is no [source.\"{}\"]", entry.source)))?;
        let mut source = source.clone();
        source.patches.extend(read_patches(folder, &entry.patches)?);
        let config = read_configs(folder, &entry.configs)?;
        if let Err(bad) = fragment::check(&config) {
            let line = config.lines().nth(bad.line - 1).unwrap_or_default();
            return Err(refuse(&format!("{line}, in two of its configs: {}", bad.reason)));
        }
        Ok(Self {
            selftest: read_folder(&folder.join(&entry.selftest))?,
            slots: read_folder(&folder.join("slots"))?,
            source,
            objects: entry.objects,
            options: entry.options,
            explorer: entry.explorer,
            on_request: entry.on_request,
            config,
            name,
        })
    }

    /// Names the kernel that this entry builds from the archive with the checksum `archive`
    /// (SHA-256 in hexadecimal), with the compiler, the linker and the pahole of this machine, as
    /// 64 hexadecimal digits: the same key means the same kernel.
    ///
    /// # Errors
    ///
    /// One of them cannot be run.
    pub(super) fn cache_key(&self, archive: &str) -> Result<String, KernelError> {
        Ok(self.cache_key_with(archive, [&compiler()?, &linker()?, &type_writer()?]))
    }

    fn cache_key_with(&self, archive: &str, tools: [&str; 3]) -> String {
        let mut hash = Sha256::new();
        // Lengths keep apart what would else run together.
        let mut add = |part: &str| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        add(RECIPE);
        add(archive);
        add(&self.config);
        add(&self.source.uninstrumented.len().to_string());
        self.source.uninstrumented.iter().for_each(|path| add(path));
        add(&self.source.patches.len().to_string());
        let patches = self.source.patches.iter().map(|(name, text)| (name, text));
        for (name, text) in patches.chain(&self.selftest).chain(&self.slots) {
            add(name);
            add(text);
        }
        for tool in tools {
            add(tool);
        }
        hex::encode(hash.finalize())
    }
}

/// The fragments `names`, each of which must make sense by itself.
fn read_configs(folder: &Path, names: &[PathBuf]) -> Result<String, KernelError> {
    let mut all = String::new();
    for name in names {
        let config = TextFile::read(&folder.join(name))?;
        fragment::check(&config.text).map_err(|bad| config.invalid_line(bad.line, bad.reason))?;
        all += &config.text;
        if !all.ends_with('\n') {
            all.push('\n');
        }
    }
    Ok(all)
}

/// The files in `folder`, but not what editors leave there: hidden ones and those ending in `~`.
fn read_folder(folder: &Path) -> Result<BTreeMap<String, String>, TextFileError> {
    let failed = |source| TextFileError::Read { path: folder.to_owned(), source };
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !name.ends_with('~') {
            files.insert(name, read(&entry.path())?);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"[source.tree]
package = "linux-source-6.12"
version = "6.12.1"
archive = "/usr/src/l.tar.xz"
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
patches = ["1.patch"]
uninstrumented = ["lib/a.o"]
[kernel.small]
source = "tree"
configs = ["a.config"]
selftest = "selftest"
objects = 7
"#;

    fn checkout(toml: &str, config: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("kernels");
        for below in ["selftest", "slots"] {
            fs::create_dir_all(folder.join(below)).unwrap();
            fs::write(folder.join(below).join("main.c"), "int i;\n").unwrap();
        }
        for (name, text) in [("kernels.toml", toml), ("a.config", config), ("1.patch", "--- a\n")] {
            fs::write(folder.join(name), text).unwrap();
        }
        root
    }

    fn refusal(toml: &str, config: &str) -> String {
        let root = checkout(toml, config);
        let message = Catalogue::load(root.path()).unwrap_err().to_string();
        message.replace(&root.path().display().to_string(), "")
    }

    #[test]
    fn an_entry_is_read_with_the_files_it_names() {
        let root = checkout(ENTRY, "CONFIG_PVH=y\n");
        let catalogue = Catalogue::load(root.path()).unwrap();
        let kernel = catalogue.get("small").unwrap();
        assert_eq!(kernel.config, "CONFIG_PVH=y\n");
        assert_eq!(kernel.source.patches, [("1.patch".to_owned(), "--- a\n".to_owned())]);
        assert_eq!(kernel.selftest["main.c"], "int i;\n");
        assert_eq!(kernel.source.archive, Path::new("/usr/src/l.tar.xz"));
        assert_eq!(catalogue.get("big").unwrap_err().to_string(), "no kernel is called big; there are: small");
    }

    #[test]
    fn a_kernel_s_own_patches_apply_behind_those_of_its_source() {
        let source = ENTRY.replace("patches = [\"1.patch\"]", "patches = [\"1.patch\", \"2.patch\"]");
        let other = "[kernel.other]\nsource = \"tree\"\nconfigs = []\nselftest = \"selftest\"\nobjects = 7\n";
        let kernels = [ENTRY.to_owned() + "patches = [\"2.patch\"]\non_request = true\n" + other, source].map(|toml| {
            let root = checkout(&toml, "");
            fs::write(root.path().join("kernels/2.patch"), "--- b\n").unwrap();
            Catalogue::load(root.path()).unwrap()
        });
        let [own, of_the_source] = &kernels;
        let key =
            |catalogue: &Catalogue| catalogue.get("small").unwrap().cache_key_with("00", ["gcc 12", "ld 2", "v1"]);
        assert_eq!(key(own), key(of_the_source), "it does not matter where the patch is named");
        let other = own.get("other").unwrap();
        assert_eq!(other.source.patches, [("1.patch".to_owned(), "--- a\n".to_owned())]);
        assert!(own.get("small").unwrap().on_request && !other.on_request);
    }

    #[test]
    fn paths_are_relative_to_the_folder_of_the_catalogue() {
        let root = checkout(&ENTRY.replace("/usr/src/", ""), "");
        let catalogue = Catalogue::load(root.path()).unwrap();
        assert_eq!(catalogue.get("small").unwrap().source.archive, root.path().join("kernels/l.tar.xz"));
    }

    #[test]
    fn what_editors_leave_is_no_part_of_a_kernel() {
        let root = checkout(ENTRY, "");
        for name in ["main.c~", ".main.c.swp", ".#main.c"] {
            fs::write(root.path().join("kernels/selftest").join(name), [0xff]).unwrap();
        }
        let catalogue = Catalogue::load(root.path()).unwrap();
        assert_eq!(catalogue.get("small").unwrap().selftest.keys().collect::<Vec<_>>(), ["main.c"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_and_reason() {
        let unknown = refusal(&format!("{ENTRY}jobs = 3\n"), "");
        assert!(unknown.starts_with("/kernels/kernels.toml:13: unknown field `jobs`"), "{unknown}");
        let missing = refusal(&ENTRY.replace("objects = 7\n", ""), "");
        assert!(missing.starts_with("/kernels/kernels.toml:8: missing field `objects`"), "{missing}");
        let syntax = refusal(&ENTRY.replace("\"6.12.1\"", "6.12.1"), "");
        assert!(syntax.starts_with("/kernels/kernels.toml:3: "), "{syntax}");
        let option = refusal(ENTRY, "CONFIG_PVH=y\nPVH\n");
        assert!(option.starts_with("/kernels/a.config:2: neither"), "{option}");
        let twice = refusal(&ENTRY.replace("[\"a.config\"]", "[\"a.config\", \"a.config\"]"), "CONFIG_PVH=y\n");
        assert!(twice.starts_with("kernel small: CONFIG_PVH=y, in two of its configs"), "{twice}");
        let checksum = refusal(&ENTRY.replace("cdef\"", "\""), "");
        assert!(checksum.starts_with("source tree: sha256 is not 64"), "{checksum}");
        let version = refusal(&ENTRY.replace("6.12.1\"", "../6\""), "");
        assert!(version.starts_with("source tree: version \"../6\" is none"), "{version}");
        let path = refusal(&ENTRY.replace("lib/a.o", "../a.o"), "");
        assert!(path.starts_with("source tree: uninstrumented \"../a.o\" is neither"), "{path}");
        let source = refusal(&ENTRY.replace("\"tree\"", "\"bush\""), "");
        assert_eq!(source, "kernel small: there is no [source.\"bush\"]");
        let name = refusal(&ENTRY.replace("kernel.small", "kernel.\"../small\""), "");
        assert!(name.starts_with("kernel ../small: a name has only"), "{name}");
        let file = refusal(&ENTRY.replace("1.patch", "2.patch"), "");
        assert!(file.starts_with("cannot read /kernels/2.patch"), "{file}");
    }

    #[test]
    fn the_key_changes_with_every_ingredient_and_with_nothing_else() {
        let root = checkout(ENTRY, "CONFIG_PVH=y\n");
        let kernel = Catalogue::load(root.path()).unwrap().get("small").unwrap().clone();
        let base = kernel.cache_key_with("00", ["gcc 12", "ld 2", "v1"]);
        let changed = |change: fn(&mut Kernel)| {
            let mut other = kernel.clone();
            change(&mut other);
            other.cache_key_with("00", ["gcc 12", "ld 2", "v1"])
        };
        let keys = [
            base.clone(),
            kernel.cache_key_with("00", ["gcc 13", "ld 2", "v1"]),
            kernel.cache_key_with("00", ["gcc 12", "ld 3", "v1"]),
            kernel.cache_key_with("00", ["gcc 12", "ld 2", "v2"]),
            kernel.cache_key_with("01", ["gcc 12", "ld 2", "v1"]),
            changed(|kernel| kernel.source.uninstrumented.push("lib/b.o".into())),
            changed(|kernel| kernel.source.uninstrumented.clear()),
            changed(|kernel| kernel.config.push_str("CONFIG_SMP=y\n")),
            changed(|kernel| kernel.source.patches[0].1.push('+')),
            changed(|kernel| kernel.source.patches.clear()),
            changed(|kernel| drop(kernel.selftest.insert("main.c".into(), "int j;\n".into()))),
            changed(|kernel| drop(kernel.selftest.insert("more.c".into(), String::new()))),
            changed(|kernel| drop(kernel.slots.insert("main.c".into(), "int j;\n".into()))),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(changed(|kernel| kernel.objects += 1), base, "an estimate makes no other kernel");
        assert_eq!(changed(|kernel| kernel.name.push('x')), base, "neither does another name");
        assert_eq!(changed(|kernel| kernel.options.push('x')), base, "or what it is told when it boots");
    }

    #[test]
    fn the_project_s_own_catalogue_is_valid() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let catalogue = Catalogue::load(&root).unwrap();
        assert!(!catalogue.kernels().is_empty());
        for kernel in catalogue.kernels() {
            assert!(kernel.config.contains("CONFIG_BPF_KPROBE_OVERRIDE=y\n"), "{}", kernel.name);
            assert!(kernel.selftest.contains_key("Kconfig"), "{}", kernel.name);
        }
    }
}
