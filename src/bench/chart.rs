//! Bar charts as SVG: readable on light and dark ground, and without colours.

use std::fmt::Write;

/// A chart of grouped horizontal bars.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Above the chart.
    pub title: String,
    /// Below the axis.
    pub unit: String,
    /// One series each.
    pub groups: Vec<Bars>,
}

/// One series.
#[derive(Clone, Debug)]
pub struct Bars {
    /// Its name in the legend.
    pub name: String,
    /// Label, value, and the lowest and highest of what it is the mean of.
    pub values: Vec<(String, f64, Option<[f64; 2]>)>,
}

const WIDTH: f64 = 860.0;
const LABELS: f64 = 190.0;
const BAR: f64 = 14.0;
const GAP: f64 = 10.0;
const TOP: f64 = 66.0;

/// Of Okabe and Ito 2008, told apart with any colour vision.
const COLOURS: [&str; 4] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7"];

const STYLE: &str = "text{font:13px sans-serif;fill:#1a1a1a}.t{font-size:16px;font-weight:bold}\
.g{stroke:#8886;stroke-width:1}.w{stroke:#1a1a1a;stroke-width:1.5}.b{fill:#fff}\
@media(prefers-color-scheme:dark){text{fill:#eee}.w{stroke:#eee}.b{fill:#16181d}}";

impl Chart {
    /// The chart as an SVG document.
    pub fn to_svg(&self) -> String {
        let labels = self.labels();
        let step = step(self.most());
        let end = (self.most() / step).ceil().max(1.0) * step;
        let row = BAR * self.groups.len() as f64 + GAP;
        let bottom = TOP + row * labels.len() as f64;
        let x = |value: f64| LABELS + (WIDTH - LABELS - 70.0) * value / end;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\">\
             <title>{}</title><style>{STYLE}</style>\
             <rect class=\"b\" width=\"100%\" height=\"100%\"/>\
             <text class=\"t\" x=\"12\" y=\"24\">{}</text>\n",
            bottom + 52.0,
            escaped(&self.title),
            escaped(&self.title)
        );
        self.legend(&mut svg);
        let mut tick = 0.0;
        while tick <= end + step / 2.0 {
            let at = x(tick);
            put(
                &mut svg,
                format_args!(
                    "<line class=\"g\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{bottom}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                    TOP - 6.0,
                    bottom + 18.0,
                    number(tick)
                ),
            );
            tick += step;
        }
        for (line, label) in labels.iter().enumerate() {
            let y = TOP + row * line as f64;
            put(
                &mut svg,
                format_args!(
                    "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                    LABELS - 8.0,
                    y + row / 2.0,
                    escaped(label)
                ),
            );
            for (series, group) in self.groups.iter().enumerate() {
                let Some((_, value, range)) = group.values.iter().find(|(name, ..)| name == label)
                else {
                    continue;
                };
                bar(&mut svg, (y + BAR * series as f64, series), (*value, *range), &x);
            }
        }
        put(
            &mut svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n</svg>\n",
                (LABELS + WIDTH) / 2.0,
                bottom + 40.0,
                escaped(&self.unit)
            ),
        );
        svg
    }

    fn legend(&self, svg: &mut String) {
        let mut at = 12.0;
        for (series, group) in self.groups.iter().enumerate() {
            put(
                svg,
                format_args!(
                    "<rect x=\"{at:.1}\" y=\"36\" width=\"12\" height=\"12\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"47\">{}</text>\n",
                    colour(series),
                    at + 17.0,
                    escaped(&group.name)
                ),
            );
            at += 40.0 + 7.5 * group.name.len() as f64;
        }
    }

    fn most(&self) -> f64 {
        let values = self.groups.iter().flat_map(|group| &group.values);
        let values =
            values.map(|(_, value, range)| range.map_or(*value, |range| range[1].max(*value)));
        values.fold(0.0, f64::max)
    }

    /// Every label, in the order of its first appearance.
    fn labels(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = Vec::new();
        for (label, ..) in self.groups.iter().flat_map(|group| &group.values) {
            if !labels.contains(&label.as_str()) {
                labels.push(label);
            }
        }
        labels
    }
}

fn bar(
    svg: &mut String,
    (y, series): (f64, usize),
    (value, range): (f64, Option<[f64; 2]>),
    x: &impl Fn(f64) -> f64,
) {
    let middle = y + (BAR - 2.0) / 2.0;
    put(
        svg,
        format_args!(
            "<rect x=\"{LABELS}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"/>",
            x(value) - LABELS,
            BAR - 2.0,
            colour(series)
        ),
    );
    let mut end = x(value);
    if let Some([low, high]) = range.filter(|[low, high]| high > low) {
        end = end.max(x(high));
        put(
            svg,
            format_args!(
                "<line class=\"w\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>",
                x(low),
                x(high)
            ),
        );
    }
    put(
        svg,
        format_args!("<text x=\"{:.1}\" y=\"{:.1}\">{value:.2}</text>\n", end + 5.0, middle + 4.5),
    );
}

fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    svg.write_fmt(text).expect("writing to a string does not fail");
}

fn colour(series: usize) -> &'static str {
    COLOURS[series % COLOURS.len()]
}

/// A step of 1, 2 or 5 times a power of ten that makes five to ten of `most`.
fn step(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf((most / 10.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| most / step <= 10.0).unwrap_or(10.0 * power)
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_few() {
        for (most, expected) in [(3.4, 0.5), (14.0, 2.0), (53.0, 10.0), (0.0, 1.0), (10.0, 1.0)] {
            assert!((step(most) - expected).abs() < 1e-9, "{most}: {}", step(most));
        }
        assert_eq!((number(2.0).as_str(), number(0.5).as_str()), ("2", "0.5"));
    }

    #[test]
    fn a_chart_has_every_label_value_and_name_and_no_open_tag() {
        let values = vec![("a < b".to_owned(), 2.5, Some([2.0, 3.0])), ("c".to_owned(), 1.0, None)];
        let groups = vec![Bars { name: "ours".into(), values }];
        let chart = Chart { title: "A & B".into(), unit: "Gbit/s".into(), groups };
        let svg = chart.to_svg();
        for text in ["A &amp; B", "a &lt; b", ">2.50<", ">1.00<", "ours", "Gbit/s", "</svg>"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }
}
