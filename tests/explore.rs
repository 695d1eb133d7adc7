//! Temporary.
use execution::{How, Fate, RunError};
use fault_plan::{CallPath, Errno, Fault, FaultPlan, InjectedError};
use crate::common::{fault, guests_of};

#[test]
fn explore_sweep() {
    let target = std::env::var("T").unwrap_or("btrfs-mount".to_owned());
    let mut guest = guests_of(&target);
    let fault_free = guest.prepared.target.fault_free();
    let free = guest.run(&fault_free);
    let holding = FaultPlan { faults: vec![fault(&["...", "super_setup_bdi_name"], 1)], ..fault_free.clone() };
    let start = std::time::Instant::now();
    let e = guest.run(&holding);
    println!("{:?} {:?} {:?} {:?}", e.findings, e.fired, e.steps, e.guest);
    for _ in 0..3 {
        let ran = guest.ran(&fault_free, How::Next);
        match ran.execution { Ok(e) => println!("next: {:?} {:?} {:?}", e.findings, e.steps, e.guest), Err(x) => println!("{x}") }
        for l in ran.late { println!("late {:?}", l.findings); }
    }
    let mut sites: Vec<_> = free.hits.iter().filter_map(|h| free.sites.iter().find(|s| s.site == h.site).map(|s| (h.count, s.clone()))).collect();
    let only = std::env::var("F").unwrap_or("should_fail_bio".to_owned());
    sites.retain(|s| s.1.function == only);
    println!("{} sites", sites.len());
    let mut n = 0; let mut again = 0;
    for (count, site) in sites { for occ in 1..=count.min(50) {
        let f = Fault { function: site.function.clone(), call_path: CallPath(site.call_path.clone()), occurrence: occ, error: if site.function == "should_fail_alloc_page" { InjectedError::True } else { InjectedError::Errno(if site.function == "should_fail_bio" { Errno::EIO } else { Errno::ENOMEM }) }, step: None };
        let p = FaultPlan { faults: vec![f.clone()], ..fault_free.clone() };
        n += 1;
        loop {
            let ran = guest.ran(&p, How::Next);
            for l in &ran.late { println!("{n} late {:?}: {:?}", l.findings.iter().map(|f| f.title().to_owned()).collect::<Vec<_>>(), l.plan.faults); }
            match ran.execution {
                Err(RunError::NoNext) => { again += 1; let e = guest.ran(&holding, How::Fresh).execution.unwrap(); assert_eq!(e.guest, Fate::Unclean); continue; }
                Err(x) => { println!("{n}: {x}"); break; }
                Ok(e) => { if !e.findings.is_empty() { println!("{n} occ {occ} {:?} fired {} {:?} {:?}", e.findings.iter().map(|f| f.title().to_owned()).collect::<Vec<_>>(), e.fired.len(), e.guest, site.call_path); } break; }
            }
        }
    } }
    println!("{n} faults, {again} again, {:?} s", start.elapsed());
}

#[test]
fn explore_survey() {
    let target = std::env::var("T").unwrap_or("btrfs-mount".to_owned());
    let mut guest = guests_of(&target);
    let fault_free = guest.prepared.target.fault_free();
    let free = guest.run(&fault_free);
    let start = std::time::Instant::now();
    let mut n = 0;
    for hit in &free.hits {
        let Some(site) = free.sites.iter().find(|s| s.site == hit.site) else { println!("no site"); continue };
        let error = match site.function.as_str() { "should_fail_alloc_page" => InjectedError::True, "should_fail_bio" | "btrfs_search_slot" => InjectedError::Errno(Errno::EIO), "btrfs_check_leaf" | "btrfs_check_node" => InjectedError::Errno(Errno::EUCLEAN), _ => InjectedError::Errno(Errno::ENOMEM) };
        let f = Fault { function: site.function.clone(), call_path: CallPath(site.call_path.clone()), occurrence: 1, error, step: None };
        let p = FaultPlan { faults: vec![f], ..fault_free.clone() };
        n += 1;
        let ran = guest.ran(&p, How::Warm);
        for l in &ran.late { println!("{n} late {:?}: {:?}", l.findings.iter().map(|f| f.title().to_owned()).collect::<Vec<_>>(), l.plan.faults); }
        match ran.execution { Ok(e) if !e.findings.is_empty() => println!("{n} {} {:?} {:?} {:?}", site.function, e.findings.iter().map(|f| f.title().to_owned()).collect::<Vec<_>>(), e.steps, e.fired.iter().map(|f| f.call_path.join(" ")).collect::<Vec<_>>()), Err(x) => println!("{n} {x}"), _ => {} }
    }
    println!("{n} points {:?} {:?}", start.elapsed(), guest.usage());
}
