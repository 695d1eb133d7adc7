//! `fuzz kernel build` and `fuzz kernel list`.

use std::io::Write;

use crate::{
    exit::{Answer, CommandError},
    views::progress::Progress,
};
use execution::Stop;
use files::cache;
use guests::{kernel, prepare::built_kernel, project::Project};

/// Builds the kernel called `name`, or all that are not built on request only, unless the cache has
/// them, and says where they are.
///
/// # Errors
///
/// It is unknown or cannot be built, or the user asks to stop.
pub fn kernel_build(
    name: Option<&str>,
    stop: &Stop,
    out: &mut dyn Write,
    progress: &Progress,
) -> Result<Answer, CommandError> {
    let (project, cache) = (Project::find()?, cache::directory()?);
    let catalogue = kernel::Catalogue::load(project.root())?;
    let all = catalogue.kernels().iter().filter(|kernel| !kernel.on_request).map(|kernel| kernel.name.as_str());
    let names: Vec<&str> = name.map_or_else(|| all.collect(), |name| vec![name]);
    for name in names {
        let built = built_kernel(&project, name, &cache, stop, progress)?;
        writeln!(out, "{}", built.vmlinux.display())?;
    }
    Ok(Answer::Yes)
}

/// Lists the kernels and whether they are built.
///
/// # Errors
///
/// `kernels.toml` is refused, or the cache is damaged.
pub fn kernel_list(json: bool, out: &mut dyn Write) -> Result<Answer, CommandError> {
    let catalogue = kernel::Catalogue::load(Project::find()?.root())?;
    for listed in kernel::list(&catalogue, &cache::directory()?)? {
        let name = &listed.kernel.name;
        match (listed.built, json) {
            (Some(built), false) => {
                writeln!(out, "{name:<18} built, {}: {}", built.meta.release, built.vmlinux.display())?;
            }
            (None, false) => writeln!(out, "{name:<18} not built: fuzz kernel build {name}")?,
            (built, true) => {
                let meta = built.map(|built| built.meta);
                writeln!(out, "{}", serde_json::json!({ "name": name, "dir": listed.dir, "built": meta }))?;
            }
        }
    }
    Ok(Answer::Yes)
}
