//! `shardlight chat`: a conversation with line editing.

use std::io::IsTerminal as _;
use std::path::Path;
use std::rc::Rc;

use anyhow::Context as _;
use console::style;
use rustyline::Editor;
use rustyline::config::{Behavior, Config};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use shardlight::chat::Message;
use shardlight::constraint::Constraint;
use shardlight::session::StopReason;

use crate::answer;
use crate::cli::Chat;
use crate::commands::run::summary;
use crate::load::{self, Loaded};
use crate::models::Cache;
use crate::out::Out;
use crate::prompt;
use crate::ui::Ui;

const HELP: &str = "\
/reset          forget the conversation
/system [TEXT]  new instructions, or none, and forget the conversation
/quit           leave (also Ctrl-D)
Ctrl-C stops an answer; a line that ends in \\ goes on in the next";

/// Reads lines and streams answers until Ctrl-D.
pub fn run(args: &Chat, ui: Ui) -> anyhow::Result<()> {
    let loaded = load::load(&args.model, ui)?;
    let cache = Cache::open()?;
    let history = cache.history();
    let mut editor = editor(&history)?;
    ui.note(format_args!(
        "{} on {}; /help for help, Ctrl-D to leave",
        style(&args.model.name.model).bold().for_stderr(),
        loaded.device()
    ));
    let mut chat = Conversation {
        constraint: args.talk.form.compile(&loaded.session)?,
        loaded,
        messages: prompt::begin(args.talk.system.as_deref()),
        out: Out::new(),
        ui,
    };
    while let Some(line) = read(&mut editor)? {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        // History is a comfort: a cache that cannot be written must not end the chat.
        let _ = editor.add_history_entry(line);
        match command(line) {
            Some(Command::Help) => ui.note(HELP),
            Some(Command::Reset) => chat.reset(),
            Some(Command::System(text)) => chat.system(text),
            Some(Command::Quit) => break,
            Some(Command::Unknown(name)) => {
                ui.note(format_args!("{name} is no command; /help lists them"));
            }
            None => chat.answer(line, args)?,
        }
    }
    if cache.create().is_ok() {
        let _ = editor.save_history(&history);
    }
    chat.out.finish()
}

struct Conversation {
    loaded: Loaded,
    /// The form of every answer.
    constraint: Option<Rc<dyn Constraint>>,
    messages: Vec<Message>,
    out: Out,
    ui: Ui,
}

impl Conversation {
    fn reset(&mut self) {
        self.messages.retain(|message| message.role() == "system");
        self.loaded.session.reset();
        self.ui.note("forgotten");
    }

    fn system(&mut self, text: &str) {
        self.messages = prompt::begin((!text.is_empty()).then_some(text));
        self.loaded.session.reset();
        self.ui.note("noted; the conversation starts anew");
    }

    /// Streams the answer to `line`. A failure that leaves the session usable is reported, and the
    /// conversation stays as it was before.
    fn answer(&mut self, line: &str, args: &Chat) -> anyhow::Result<()> {
        self.messages.push(Message::new("user", line));
        let answer = prompt::render(&self.loaded.session, &self.messages).and_then(|tokens| {
            let options = answer::options(&args.talk, self.constraint.clone());
            let out = &mut self.out;
            answer::generate(
                &mut self.loaded.session,
                &tokens,
                &options,
                self.ui,
                &mut |text| out.stream(text),
            )
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.messages.pop();
                return match error.downcast_ref() {
                    Some(shardlight::Error::ContextExceeded { .. }) => {
                        self.ui
                            .note(format_args!("{error}; or start anew with /reset"));
                        Ok(())
                    }
                    _ => Err(error),
                };
            }
        };
        let end = if answer.text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        self.out.stream(end)?;
        if let StopReason::Cancelled = answer.stop {
            self.ui.aside("stopped");
        }
        summary(&answer, &self.loaded, self.ui);
        self.messages.push(Message::new("assistant", &answer.text));
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Command<'a> {
    Help,
    Reset,
    System(&'a str),
    Quit,
    Unknown(&'a str),
}

fn command(line: &str) -> Option<Command<'_>> {
    if !line.starts_with('/') {
        return None;
    }
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    Some(match name {
        "/help" | "/?" => Command::Help,
        "/reset" | "/clear" => Command::Reset,
        "/system" => Command::System(rest.trim()),
        "/quit" | "/exit" | "/bye" => Command::Quit,
        _ => Command::Unknown(name),
    })
}

type LineEditor = Editor<(), FileHistory>;

fn editor(history: &Path) -> anyhow::Result<LineEditor> {
    // With standard output in a file or a pipe the prompt belongs on the terminal, not among the text.
    let to_terminal = std::io::stdin().is_terminal() && !std::io::stdout().is_terminal();
    let config = Config::builder().behavior(if to_terminal {
        Behavior::PreferTerm
    } else {
        Behavior::Stdio
    });
    let mut editor = Editor::with_config(config.build()).context("terminal")?;
    // There is none on the first run.
    let _ = editor.load_history(history);
    Ok(editor)
}

/// The next line, with lines that end in a backslash joined to the one after; `None` at the end of input.
fn read(editor: &mut LineEditor) -> anyhow::Result<Option<String>> {
    let mut text = String::new();
    loop {
        let prompt = if text.is_empty() { "> " } else { "… " };
        match editor.readline(prompt) {
            Ok(line) => match line.strip_suffix('\\') {
                Some(line) => {
                    text += line;
                    text.push('\n');
                }
                None => return Ok(Some(text + &line)),
            },
            // Ctrl-C at the prompt throws the line away, as shells do.
            Err(ReadlineError::Interrupted) => text.clear(),
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(error).context("terminal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_begin_with_a_slash() {
        assert_eq!(command("what is /reset?"), None);
        assert_eq!(command("/reset"), Some(Command::Reset));
        assert_eq!(
            command("/system  Be brief. "),
            Some(Command::System("Be brief."))
        );
        assert_eq!(command("/system"), Some(Command::System("")));
        assert_eq!(command("/nope x"), Some(Command::Unknown("/nope")));
    }
}
