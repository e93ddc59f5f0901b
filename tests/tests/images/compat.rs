// SPDX-License-Identifier: Apache-2.0
//! Images with a `libcuda.so.1` of their own for newer CUDA versions, as `nvidia/cuda` has in `/usr/local/cuda/compat`.

use crate::image::{Image, Layout};
use crate::podman::Podman;

const COMPAT_DIR: &str = "/usr/local/cuda/compat";

/// What `cuInit` of the image answers; that of the simulated driver answers 100.
const OF_IMAGE: &str = "7";

fn cuda_of(podman: &Podman<'_>, image: &Image, options: &[&str]) -> String {
    let answers = podman.answers(image, options);
    answers.first().and_then(|line| line.rsplit(' ').next()).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_of_the_host_is_used_unless_the_container_asks_for_that_of_the_image() {
    for with_hook in [false, true] {
        let (node, devices) = crate::distributions::prepared(with_hook).await;
        let cdi_dir = node.cdi_dir();
        let podman = Podman { cdi_dir: &cdi_dir, device_dir: None, devices };
        for layout in Layout::all() {
            let image = Image::new(layout);
            image.add_cuda(&COMPAT_DIR[1..], OF_IMAGE.parse().unwrap());
            assert_eq!(cuda_of(&podman, &image, &[]), "100", "{layout:?}");
            let by_variable = format!("--env=LD_LIBRARY_PATH={COMPAT_DIR}");
            assert_eq!(cuda_of(&podman, &image, &[&by_variable]), OF_IMAGE, "{layout:?}");
            if layout.has_cache() {
                image.configure_loader("000_cuda_compat.conf", COMPAT_DIR);
                // Only the hook can add a library to a cache of the image.
                let expect = if with_hook { "100" } else { OF_IMAGE };
                assert_eq!(cuda_of(&podman, &image, &[]), expect, "{layout:?}");
                assert_eq!(cuda_of(&podman, &image, &[&by_variable]), OF_IMAGE, "{layout:?}");
            }
        }
    }
}
