//! Every kernel on every device of this machine, as figures and as a chart.

use std::fmt::Write;

use serde::Serialize;

use super::environment::Environment;
use crate::device::measure::{
    Choice, Effort, Figure, Unit, beside_link, choose, measure_card, measure_fitting,
    measure_together,
};
use crate::device::{BACKENDS, Device, Error, open};

/// A device of this machine, or why there is none.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Its name.
    pub device: &'static str,
    /// What the hardware calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// Whether it is this machine's processor, which `auto` leaves to the CPU's own forms.
    pub simulated: bool,
}

/// The devices of the registry.
pub fn devices() -> Vec<Found> {
    let found = |(name, _): &(&'static str, crate::device::Open)| {
        let absent = |reason| (None, Some(reason), false);
        let (model, absent, simulated) = match open(name) {
            Ok(device) => (Some(device.model()), None, device.is_simulated()),
            Err(Error::Absent { reason, .. }) => absent(reason),
            Err(error) => absent(error.to_string()),
        };
        Found { device: name, model, absent, simulated }
    };
    BACKENDS.iter().map(found).collect()
}

/// What was measured, on what.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The machine.
    pub environment: Environment,
    /// Its devices.
    pub devices: Vec<Found>,
    /// All figures.
    pub figures: Vec<Figure>,
    /// Which device does a kernel fastest.
    pub choices: Vec<Choice>,
}

impl Report {
    /// Measures every device of `names`, or of this machine when none is named: on all cores, and on one
    /// too when limits are asked for. One that fails, and was not named, has no figures but a reason.
    ///
    /// Errors: a device that was named is absent, or failed.
    pub fn measure(names: &[String], effort: Effort) -> Result<Self, Error> {
        let (mut figures, mut devices) = (Vec::new(), devices());
        let all: Vec<String> = BACKENDS.iter().map(|(name, _)| (*name).into()).collect();
        let wanted = if names.is_empty() { &all } else { names };
        for name in wanted {
            match open(name).and_then(|device| by_workers(device.as_ref(), effort)) {
                Ok(measured) => figures.extend(measured),
                Err(error) if names.is_empty() => {
                    let found = devices.iter_mut().find(|found| found.device == name);
                    found.map(|found| found.absent.get_or_insert(error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        let real = |figure: &&Figure| {
            !devices.iter().any(|found| found.device == figure.device && found.simulated)
        };
        let choices = choose(&figures.iter().filter(real).cloned().collect::<Vec<_>>());
        Ok(Self { environment: Environment::look(), devices, figures, choices })
    }

    /// The chart: a panel for each unit and number of threads, in it a bar for each kernel and device, and a
    /// mark where the limit would be.
    pub fn svg(&self) -> String {
        let mut body = String::new();
        let mut y = 40;
        let mut workers: Vec<usize> = self.figures.iter().map(|figure| figure.workers).collect();
        workers.sort_unstable();
        workers.dedup();
        for unit in [Unit::Gigabytes, Unit::GigaCells, Unit::Millions] {
            for &workers in &workers {
                let of_panel = |figure: &&Figure| figure.unit == unit && figure.workers == workers;
                let figures: Vec<&Figure> = self.figures.iter().filter(of_panel).collect();
                panel(&mut body, &mut y, &figures);
            }
        }
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='760' height='{y}' role='img'>\
             <title>Kernels on the devices of one machine</title>\
             <style>text{{font:13px sans-serif;fill:#222}}.u{{font-weight:bold}}\
             .l{{stroke:#222;stroke-width:2}}</style>\
             <rect width='100%' height='100%' fill='#fff'/>\
             <text x='10' y='18'>{}</text>{body}</svg>\n",
            escaped(&self.environment.processor)
        )
    }
}

fn by_workers(device: &dyn Device, effort: Effort) -> Result<Vec<Figure>, Error> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let card = if effort.limits { measure_card(device, effort)? } else { Vec::new() };
    let mut figures = Vec::new();
    if effort.limits && cores > 1 {
        figures = measure_together(device, effort, 1)?;
    }
    figures.extend(measure_fitting(device, effort, cores)?);
    beside_link(&mut figures, &card);
    Ok([card, figures].concat())
}

/// A title, a bar for each figure, and the room below.
fn panel(body: &mut String, y: &mut i32, figures: &[&Figure]) {
    let most = figures.iter().map(|figure| figure.rate).fold(0.0, f64::max);
    let Some(first) = figures.first().filter(|_| most > 0.0) else { return };
    let threads = if first.workers == 1 { "thread" } else { "threads" };
    let _ = write!(
        body,
        "<text x='10' y='{y}' class='u'>{}, {} {threads}</text>",
        first.unit.name(),
        first.workers
    );
    *y += 8;
    figures.iter().for_each(|figure| bar(body, y, figure, most));
    *y += 34;
}

/// One bar, and the line below it.
fn bar(body: &mut String, y: &mut i32, figure: &Figure, most: f64) {
    let hue = BACKENDS.iter().position(|(name, _)| *name == figure.device).unwrap_or(0) * 75 + 30;
    let (left, full) = (190.0, 340.0);
    let mut end = left + full * figure.rate / most;
    let name = format!("{} on {}", figure.kernel, figure.device);
    let text = *y + 13;
    let _ = write!(
        body,
        "<text x='10' y='{text}'>{}</text>\
         <rect x='{left}' y='{y}' width='{:.1}' height='15' fill='hsl({hue},55%,50%)'/>",
        escaped(&name),
        end - left,
    );
    let mut words = format!("{:.2}", figure.rate);
    if let Some(limit) = &figure.limit {
        let _ = write!(words, " ({:.2} of {})", limit.share, limit.name);
        let at = left + (end - left) / limit.share;
        // A limit that is far away would be on another page.
        if at <= left + 1.1 * full {
            let _ = write!(
                body,
                "<line class='l' x1='{at:.1}' x2='{at:.1}' y1='{y}' y2='{}'/>",
                *y + 15
            );
            end = end.max(at);
        }
    }
    let _ = write!(body, "<text x='{:.1}' y='{text}'>{}</text>", end + 6.0, escaped(&words));
    *y += 20;
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::device::Kernel;

    const BRIEF: Effort = Effort { bytes: 4096, jobs: 10, time: Duration::ZERO, limits: true };

    #[test]
    fn a_report_has_a_bar_for_each_figure_and_a_choice_for_each_kernel() {
        let report = Report::measure(&["cpu".into()], BRIEF).unwrap();
        let chart = report.svg();
        assert_eq!(chart.matches("<rect x=").count(), report.figures.len());
        assert!(chart.starts_with("<svg ") && chart.ends_with("</svg>\n"));
        assert!(report.choices.iter().all(|choice| choice.device == "cpu"));
        assert_eq!(report.choices.len(), Kernel::ALL.len());
        let mut workers: Vec<_> = report.figures.iter().map(|figure| figure.workers).collect();
        workers.dedup();
        let cores = std::thread::available_parallelism().unwrap().get();
        assert_eq!(workers, if cores == 1 { vec![1] } else { vec![1, cores] });
        for figure in report.figures.iter().filter(|figure| figure.kernel != "copy") {
            let limit = figure.limit.as_ref().unwrap();
            let text = format!(">{:.2} ({:.2} of {})<", figure.rate, limit.share, limit.name);
            assert!(chart.contains(&text), "{text}");
        }
        assert_eq!(report.devices.len(), BACKENDS.len());
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error_when_it_is_named() {
        let unknown = Report::measure(&["abacus".into()], BRIEF);
        assert!(matches!(unknown, Err(Error::Unknown { .. })));
    }
}
