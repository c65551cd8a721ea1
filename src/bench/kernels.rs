//! Every kernel on every device of this machine, as figures and as a chart.

use std::fmt::Write;

use serde::Serialize;

use super::environment::Environment;
use crate::device::measure::{Choice, Effort, Figure, Unit, choose, measure};
use crate::device::{BACKENDS, Error, open};

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
}

/// The devices of the registry.
pub fn devices() -> Vec<Found> {
    let found = |(name, _): &(&'static str, crate::device::Open)| match open(name) {
        Ok(device) => Found { device: name, model: Some(device.model()), absent: None },
        Err(Error::Absent { reason, .. }) => {
            Found { device: name, model: None, absent: Some(reason) }
        }
        Err(error) => Found { device: name, model: None, absent: Some(error.to_string()) },
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
    /// Measures every device of `names`, or of this machine when none is named.
    ///
    /// Errors: a device that was named is absent, or failed.
    pub fn measure(names: &[String], effort: Effort) -> Result<Self, Error> {
        let mut figures = Vec::new();
        let all: Vec<String> = BACKENDS.iter().map(|(name, _)| (*name).into()).collect();
        let wanted = if names.is_empty() { &all } else { names };
        for name in wanted {
            match open(name) {
                Ok(device) => figures.extend(measure(device.as_ref(), effort)?),
                Err(Error::Absent { .. }) if names.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        let choices = choose(&figures);
        Ok(Self { environment: Environment::look(), devices: devices(), figures, choices })
    }

    /// The chart: a panel for each unit, in it a bar for each kernel and device.
    pub fn svg(&self) -> String {
        let mut body = String::new();
        let mut y = 40;
        for unit in [Unit::Gigabytes, Unit::GigaCells, Unit::Millions] {
            let figures: Vec<&Figure> =
                self.figures.iter().filter(|figure| figure.unit == unit).collect();
            let most = figures.iter().map(|figure| figure.rate).fold(0.0, f64::max);
            if most > 0.0 {
                let _ = write!(body, "<text x='10' y='{y}' class='u'>{}</text>", unit.name());
                y += 8;
                for figure in figures {
                    bar(&mut body, &mut y, figure, most);
                }
                y += 34;
            }
        }
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='720' height='{y}' role='img'>\
             <title>Kernels on the devices of one machine</title>\
             <style>text{{font:13px sans-serif;fill:#222}}.u{{font-weight:bold}}</style>\
             <rect width='100%' height='100%' fill='#fff'/>\
             <text x='10' y='18'>{}</text>{body}</svg>\n",
            escaped(&self.environment.processor)
        )
    }
}

/// One bar, and the line below it.
fn bar(body: &mut String, y: &mut i32, figure: &Figure, most: f64) {
    let hue = BACKENDS.iter().position(|(name, _)| *name == figure.device).unwrap_or(0) * 75 + 30;
    let width = 400.0 * figure.rate / most;
    let name = format!("{} on {}", figure.kernel, figure.device);
    let _ = write!(
        body,
        "<text x='10' y='{}'>{}</text>\
         <rect x='190' y='{y}' width='{width:.1}' height='15' fill='hsl({hue},55%,50%)'/>\
         <text x='{:.1}' y='{}'>{:.2}</text>",
        *y + 13,
        escaped(&name),
        196.0 + width,
        *y + 13,
        figure.rate
    );
    *y += 20;
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BRIEF: Effort = Effort { bytes: 4096, jobs: 10, time: Duration::ZERO };

    #[test]
    fn a_report_has_a_bar_for_each_figure_and_a_choice_for_each_kernel() {
        let report = Report::measure(&["cpu".into()], BRIEF).unwrap();
        let chart = report.svg();
        assert_eq!(chart.matches("<rect x=").count(), report.figures.len());
        assert!(chart.starts_with("<svg ") && chart.ends_with("</svg>\n"));
        assert!(report.choices.iter().all(|choice| choice.device == "cpu"));
        assert_eq!(report.choices.len() + 1, report.figures.len(), "all but the copy");
        assert_eq!(report.devices.len(), BACKENDS.len());
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error_when_it_is_named() {
        let unknown = Report::measure(&["abacus".into()], BRIEF);
        assert!(matches!(unknown, Err(Error::Unknown { .. })));
    }
}
