//! The `espalier` command.

fn main() -> std::process::ExitCode {
    controller::cli::run()
}
