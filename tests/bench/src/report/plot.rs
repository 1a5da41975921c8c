//! Plots as SVG: points that are joined by lines, both axes logarithmic.

use std::fmt::Write as _;

/// A line of a plot.
pub(super) struct Line {
    /// What it is.
    pub(super) name: String,
    /// Where it goes through, from left to right.
    pub(super) points: Vec<(f64, f64)>,
}

/// A plot.
pub(super) struct Plot<'t> {
    pub(super) title: &'t str,
    /// What the axes are, with units.
    pub(super) x: &'t str,
    pub(super) y: &'t str,
    pub(super) lines: Vec<Line>,
}

/// All in pixels. To the right of the axes there is room for the names of lines.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 610.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 410.0;
const NAME_HEIGHT: f64 = 15.0;

/// Colours that people with any sight can tell apart (Okabe and Ito), dark enough for white and for dark pages.
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8b6f47", "#7f7f7f",
];

impl Plot<'_> {
    /// As SVG; `None` if there is no point that could be drawn.
    pub(super) fn svg(&self) -> Option<String> {
        let points = || {
            self.lines
                .iter()
                .flat_map(|line| &line.points)
                .filter(|(x, y)| *x > 0.0 && *y > 0.0)
        };
        let x = Axis::over(points().map(|point| point.0), LEFT, RIGHT)?;
        let y = Axis::over(points().map(|point| point.1), BOTTOM, TOP)?;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        let middle = f64::midpoint(LEFT, RIGHT);
        text(&mut svg, middle, 22.0, "middle", "font-size=\"15\"", self.title);
        text(&mut svg, middle, HEIGHT - 12.0, "middle", "", self.x);
        let turned = format!("transform=\"rotate(-90 16 {})\"", HEIGHT / 2.0);
        text(&mut svg, 16.0, HEIGHT / 2.0, "middle", &turned, self.y);
        for power in x.powers() {
            let at = x.at(power);
            let _ = writeln!(svg, "<path d=\"M{at:.1} {TOP}V{BOTTOM}\" stroke=\"#ddd\"/>");
            text(&mut svg, at, BOTTOM + 17.0, "middle", "", &short(power));
        }
        for power in y.powers() {
            let at = y.at(power);
            let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"#ddd\"/>");
            text(&mut svg, LEFT - 7.0, at + 4.0, "end", "", &short(power));
        }
        self.draw_lines(&mut svg, &x, &y);
        Some(svg + "</svg>\n")
    }

    fn draw_lines(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let mut names = Vec::new();
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let drawn = line.points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0);
            let places: Vec<_> = drawn.map(|point| (x.at(point.0), y.at(point.1))).collect();
            let Some(last) = places.last() else { continue };
            let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let path = path.join(" ");
            let _ = writeln!(
                svg,
                "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
            );
            for (x, y) in &places {
                let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
            names.push((last.1, colour, &line.name));
        }
        // Each name beside the end of its line, but no two in one place.
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free = f64::MIN;
        for (at, colour, name) in names {
            let at = at.max(free);
            free = at + NAME_HEIGHT;
            text(
                svg,
                RIGHT + 10.0,
                at + 4.0,
                "start",
                &format!("fill=\"{colour}\""),
                name,
            );
        }
    }
}

/// A logarithmic axis over whole powers of ten.
struct Axis {
    /// Exponents.
    first: f64,
    last: f64,
    /// Where they are, in pixels.
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let (least, most) = values.fold((f64::MAX, f64::MIN), |(least, most), v| (least.min(v), most.max(v)));
        let first = least.log10().floor();
        let last = most.log10().ceil().max(first + 1.0);
        (least <= most).then_some(Self { first, last, from, to })
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - self.first) / (self.last - self.first);
        self.from + share * (self.to - self.from)
    }

    fn powers(&self) -> impl Iterator<Item = f64> + use<> {
        let first = self.first as i32;
        (first..=self.last as i32).map(|exponent| 10f64.powi(exponent))
    }
}

/// A power of ten as people write it: 10k, 1M.
fn short(power: f64) -> String {
    match power {
        1e6.. => format!("{}M", power / 1e6),
        1e3.. => format!("{}k", power / 1e3),
        _ => format!("{power}"),
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, further: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {further}>{text}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: &[(f64, f64)]) -> Option<String> {
        let line = Line {
            name: "a < b".to_owned(),
            points: points.to_vec(),
        };
        let lines = vec![line];
        Plot {
            title: "t",
            x: "x",
            y: "y",
            lines,
        }
        .svg()
    }

    #[test]
    fn powers_of_ten_are_equally_far_apart() {
        let svg = plot(&[(10.0, 1.0), (100.0, 10.0), (1_000.0, 100.0)]).unwrap();
        assert!(svg.contains("points=\"70.0,410.0 340.0,225.0 610.0,40.0\""), "{svg}");
        assert!(svg.contains(">1k</text>") && svg.contains(">a &lt; b</text>"), "{svg}");
    }

    #[test]
    fn what_has_no_logarithm_is_left_out() {
        assert_eq!(plot(&[(0.0, 1.0), (1.0, -1.0)]), None);
        let svg = plot(&[(1.0, 0.0), (10.0, 5.0)]).unwrap();
        assert_eq!(svg.matches("<circle").count(), 1);
    }
}
