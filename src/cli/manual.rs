//! `dsgd completions` and `dsgd man`.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::{Cli, Context, Outcome, file_error};

/// Arguments of `dsgd completions`.
#[derive(Args)]
pub struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

/// Arguments of `dsgd man`.
#[derive(Args)]
pub struct Man {
    /// Folder for the pages
    folder: PathBuf,
}

/// Runs `dsgd completions`.
pub fn completions(context: &Context, arguments: &Completions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "dsgd", &mut script);
    context.out.text(&String::from_utf8_lossy(&script));
    Ok(())
}

/// Runs `dsgd man`.
pub fn man(context: &Context, arguments: &Man) -> Outcome {
    let folder = &arguments.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(file_error(folder))?;
    context.out.result("man", folder, || format!("manual pages are in {}\n", folder.display()));
    Ok(())
}
