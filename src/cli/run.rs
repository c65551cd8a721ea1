//! `dsgd run` and `dsgd deliver`.

use clap::Args;

use super::deposit::{link_table, stage_table};
use super::device::{self, device_lines};
use super::{Context, Outcome};
use crate::base::{BitRate, ByteCount, SampleName, SiteId};
use crate::flow::{Meters, StageReport};
use crate::pipeline::analyse::AnalyseReport;
use crate::pipeline::deliver::DeliverReport;
use crate::site::Site;
use crate::site::request::{AnalyseRequest, DeliverRequest};

/// Arguments of `dsgd run`.
#[derive(Args)]
pub struct RunArguments {
    /// The deposit of reads
    name: SampleName,
    /// Name of the reference in the trusted server's configuration
    #[arg(short, long)]
    reference: String,
    /// What to call the deposit of calls [default: NAME.calls]
    #[arg(long, value_name = "NAME")]
    run: Option<SampleName>,
    /// Engine, if not the trusted server's own choice
    #[arg(long)]
    engine: Option<String>,
    /// Copies of each contig
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    ploidy: u8,
    /// The trusted server to ask; this site itself, if its own name is given
    #[arg(long, value_name = "SITE")]
    trusted: Option<SiteId>,
    /// Deliver the calls by this right as well
    #[arg(long, requires = "user")]
    right: Option<String>,
    /// The end user to deliver to
    #[arg(long, requires = "right", value_name = "SITE")]
    user: Option<SiteId>,
    #[command(flatten)]
    device: device::Choice,
}

/// Arguments of `dsgd deliver`.
#[derive(Args)]
pub struct DeliverArguments {
    /// The deposit of calls
    run: SampleName,
    /// The end user
    user: SiteId,
    /// Identifier of the access right
    #[arg(long)]
    right: String,
    /// The trusted server to ask; this site itself, if its own name is given
    #[arg(long, value_name = "SITE")]
    trusted: Option<SiteId>,
}

/// Runs `dsgd run`.
pub fn run(context: &Context, arguments: &RunArguments) -> Outcome {
    let site = context.site_on(&arguments.device)?;
    let run = match &arguments.run {
        Some(run) => run.clone(),
        None => format!("{}.calls", arguments.name).parse().map_err(|error| usage(&error))?,
    };
    let request = AnalyseRequest {
        sample: arguments.name.clone(),
        run: run.clone(),
        reference: arguments.reference.clone(),
        engine: arguments.engine.clone(),
        ploidy: arguments.ploidy,
    };
    let trusted = trusted(&site, arguments.trusted.as_ref())?;
    let meters = Meters::default();
    let report = if trusted == site.settings().site {
        let _progress = context.progress("run", &meters);
        site.analyse(&request, &meters)?
    } else if arguments.device.device.is_some() {
        let what =
            format!("the configuration of '{trusted}' says what computes there: no --device");
        return Err(super::Error::Usage(what).into());
    } else {
        site.ask_to_analyse(&trusted, request, remote_progress(context, "run"))?
    };
    let delivered = match (&arguments.right, &arguments.user) {
        (Some(right), Some(user)) => {
            Some(deliver_from(context, &site, &trusted, &run, right, user)?)
        }
        _ => None,
    };
    context.out.result("run", &(&report, &delivered), || {
        let mut text = describe_run(&run, &report);
        if let Some(delivered) = &delivered {
            text = text + "\n" + &describe_delivery(delivered);
        }
        text
    });
    Ok(())
}

/// Runs `dsgd deliver`.
pub fn deliver(context: &Context, arguments: &DeliverArguments) -> Outcome {
    let site = context.site()?;
    let trusted = trusted(&site, arguments.trusted.as_ref())?;
    let report =
        deliver_from(context, &site, &trusted, &arguments.run, &arguments.right, &arguments.user)?;
    context.out.result("deliver", &report, || describe_delivery(&report));
    Ok(())
}

fn deliver_from(
    context: &Context,
    site: &Site,
    trusted: &SiteId,
    run: &SampleName,
    right: &str,
    user: &SiteId,
) -> Result<DeliverReport, crate::site::Error> {
    let request = DeliverRequest { run: run.clone(), right: right.into(), user: user.clone() };
    if *trusted == site.settings().site {
        site.deliver(&request, &Meters::default())
    } else {
        site.ask_to_deliver(trusted, request, remote_progress(context, "deliver"))
    }
}

/// The trusted server meant: the one named, this site if it works for another one, or the one of the
/// configuration.
fn trusted(site: &Site, named: Option<&SiteId>) -> Result<SiteId, super::Error> {
    let settings = site.settings();
    if let Some(named) = named {
        return Ok(named.clone());
    }
    if settings.owner.as_ref().is_some_and(|owner| *owner != settings.site) {
        return Ok(settings.site.clone());
    }
    settings.trusted.clone().ok_or_else(|| {
        super::Error::Usage(
            "which trusted server? say --trusted SITE, or 'trusted = …' in the configuration"
                .into(),
        )
    })
}

fn usage(error: &crate::base::ids::IdError) -> super::Error {
    super::Error::Usage(error.to_string())
}

fn remote_progress(context: &Context, verb: &'static str) -> impl FnMut(&[StageReport]) {
    let watch = crate::base::clock::Stopwatch::start();
    let show = context.shows_progress();
    move |stages| {
        if show {
            eprint!("\r\x1b[2K{}", super::progress::describe(verb, stages, watch.elapsed()));
        }
    }
}

fn describe_run(run: &SampleName, report: &AnalyseReport) -> String {
    let rate = BitRate::of(ByteCount(report.fastq_bytes), report.seconds);
    let mut text = format!(
        "'{run}' holds the calls of '{}': {} records\n{} reads, {:.2} % mapped, {:.2} % duplicates; \
         engine {}\n{} of FASTQ in {:.1} s, {rate}; limited by '{}'\n",
        report.sample,
        report.records,
        report.reads,
        100.0 * report.mapped as f64 / report.reads.max(1) as f64,
        100.0 * report.duplicates as f64 / report.reads.max(1) as f64,
        report.engine,
        ByteCount(report.fastq_bytes),
        report.seconds,
        report.limiting_stage,
    );
    for notice in &report.notices {
        text += &format!("note: {notice}\n");
    }
    text += &format!("{}\n", device_lines(&report.devices));
    text + &stage_table(&report.stages) + "\n" + &link_table(&report.keys)
}

fn describe_delivery(report: &DeliverReport) -> String {
    let receipt = &report.receipt;
    let mut text = format!(
        "delivered to {}: {} records, {}, by right '{}'\nreceipt {}, digest {}\n\n",
        receipt.user,
        receipt.kept,
        ByteCount(receipt.bytes),
        receipt.right,
        receipt.job,
        receipt.digest,
    );
    for notice in &report.notices {
        text += &format!("note: {notice}\n");
    }
    text + &link_table(&report.links)
}
