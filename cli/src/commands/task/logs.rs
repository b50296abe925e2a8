//! `mainloop task logs`.

use std::io;

use mainloop_proto::v1::{LogSource, StreamTaskLogsRequest, StreamTaskLogsResponse};

use crate::{
    args::task::Logs,
    client::Client,
    exit::{Call, Exit},
    output::{Output, style::Style},
    words,
};

pub(super) async fn run(logs: Logs, client: &mut Client, output: &Output) -> anyhow::Result<Exit> {
    let what = format!("read the log of `{}`", logs.task);
    let request = StreamTaskLogsRequest {
        task_id: logs.task,
        after_position: 0,
        follow: logs.follow,
        tail: logs.tail.unwrap_or_default(),
    };
    let mut stream = client
        .tasks
        .stream_task_logs(request)
        .await
        .map_err(Call::failed(&what))?
        .into_inner();
    while let Some(chunk) = stream.message().await.map_err(Call::failed(&what))? {
        output.message(&chunk, |chunk| print(chunk, output))?;
    }
    Ok(Exit::Done)
}

fn print(chunk: &StreamTaskLogsResponse, output: &Output) -> io::Result<()> {
    if chunk.dropped > 0 {
        output.line(output.paint(
            Style::Dim,
            &format!("… {} pieces were dropped here", chunk.dropped),
        ))?;
    }
    for line in chunk.text.lines() {
        let (style, name) = (style_of(chunk.source()), words::source(chunk.source()));
        output.line(format!(
            "{} {line}",
            output.paint(style, &format!("{name:<6}"))
        ))?;
    }
    Ok(())
}

fn style_of(source: LogSource) -> Style {
    match source {
        LogSource::Claude => Style::Cyan,
        LogSource::Tool => Style::Yellow,
        LogSource::Agent | LogSource::Harness | LogSource::Unspecified => Style::Dim,
    }
}
