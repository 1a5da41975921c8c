//! Measures what the arguments ask for, and shows it.

use std::fs;

use anyhow::ensure;

use crate::arms::{Arm, Extent, arms, timed_arms};
use crate::baseline::{Baseline, Verdict};
use crate::cli::{Arguments, Part};
use crate::emulator::Emulator;
use crate::materials::{self, Materials};
use crate::native::Native;
use crate::report::{documents, terminal};
use crate::results::{Conditions, Measured, Results, Section};
use crate::targets::targets;
use crate::{instructions, micro, module, timed, updates};

/// Whether nothing got worse.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let mut results = Results::default();
    if arguments.wants(Part::Instructions) {
        match Emulator::find() {
            Ok(emulator) => {
                results.instructions = Some(count_instructions(arguments, &emulator)?);
            }
            Err(error) if arguments.quick => {
                return Ok(Verdict::Skipped(format!("{error:#}")).tell());
            }
            Err(error) => return Err(error),
        }
    }
    keep(arguments, &results)?;
    if arguments.wants(Part::Module) {
        let conditions = Conditions::now([]);
        let measured = module::measure(&Materials::gather(Extent::Full)?)?;
        results.module = Some(Section::new(conditions, measured));
        keep(arguments, &results)?;
    }
    if arguments.wants(Part::Updates) {
        let conditions = Conditions::now([]);
        let measured = updates::measure()?;
        println!("{}", terminal::updates(&measured));
        results.updates = Some(Section::new(conditions, measured));
        keep(arguments, &results)?;
    }
    if arguments.wants(Part::Micro) {
        let conditions = Conditions::now([]);
        let measured = micro::measure()?;
        println!("{}", terminal::micro(&measured));
        results.micro = Some(Section::new(conditions, measured));
        keep(arguments, &results)?;
    }
    // The last, because it keeps this program to one processor.
    if arguments.wants(Part::Cpu) || arguments.wants(Part::Latency) {
        measure_time(arguments, &mut results)?;
        keep(arguments, &results)?;
    }
    print!("{}", terminal::targets(&targets(&results)));
    guard(arguments, &results)
}

/// Writes down what there is so far: a part that fails later takes nothing with it.
fn keep(arguments: &Arguments, results: &Results) -> anyhow::Result<()> {
    let path = materials::directory()?.join("results.json");
    fs::write(&path, results.to_json()?)?;
    if !arguments.quick && arguments.arms.is_empty() {
        documents::write(results.clone())?;
    }
    Ok(())
}

fn count_instructions(arguments: &Arguments, emulator: &Emulator) -> anyhow::Result<Section<Vec<Measured>>> {
    let conditions = Conditions::now([emulator.version()?]);
    let extent = arguments.extent();
    let materials = Materials::gather(extent)?;
    let arms = wanted(arms(extent), arguments)?;
    let measured = instructions::measure(&arms, &materials, emulator)?;
    println!("{}", terminal::instructions(&measured));
    Ok(Section::new(conditions, measured))
}

fn measure_time(arguments: &Arguments, results: &mut Results) -> anyhow::Result<()> {
    let arms = wanted(timed_arms(), arguments)?;
    let native = Native::start(&arms, &Materials::gather(Extent::Full)?)?;
    let conditions = || Conditions::now([native.go_version()]);
    if arguments.wants(Part::Cpu) {
        let conditions = conditions();
        let measured = timed::cpu(&arms, &native)?;
        println!("{}", terminal::processor_time(&measured));
        results.cpu = Some(Section::new(conditions, measured));
    }
    if arguments.wants(Part::Latency) {
        let conditions = conditions();
        let latencies = timed::latency(&arms, &native)?;
        println!("{}", terminal::latency(&latencies));
        results.latency = Some(Section::new(conditions, latencies));
    }
    Ok(())
}

/// The arms that are asked for, and the one that they are compared with.
fn wanted(mut arms: Vec<Arm>, arguments: &Arguments) -> anyhow::Result<Vec<Arm>> {
    let texts = &arguments.arms;
    let is_named = |arm: &Arm| texts.iter().any(|text| arm.to_string().contains(text));
    ensure!(
        texts.is_empty() || arms.iter().any(is_named),
        "--arms: no arm has {} in its name; without --arms all are shown",
        texts.join(" or ")
    );
    arms.retain(|arm| *arm == Arm::PLAIN || texts.is_empty() || is_named(arm));
    Ok(arms)
}

/// Holds the quick arms against the baseline, or makes them the baseline.
fn guard(arguments: &Arguments, results: &Results) -> anyhow::Result<bool> {
    let Some(section) = results.instructions.as_ref().filter(|_| arguments.arms.is_empty()) else {
        return Ok(true);
    };
    let quick: Vec<String> = arms(Extent::Quick).iter().map(ToString::to_string).collect();
    let mut measured = section.figures.clone();
    measured.retain(|arm| quick.contains(&arm.arm));
    let now = Baseline::of(&measured, &section.conditions.envoy);
    if arguments.update_baseline {
        now.write()?;
        return Ok(true);
    }
    Ok(Baseline::read()?.verdict(&now).tell())
}
