// What a reader sees of a page, as values that a test can judge.
({
  overflow() {
    const page = document.documentElement;
    return page.scrollWidth - page.clientWidth;
  },

  pictures() {
    return [...document.querySelectorAll('svg[role="img"]')].map((picture) => {
      const box = picture.getBoundingClientRect();
      return {
        title: picture.querySelector("title").textContent,
        box: [box.x + scrollX, box.y + scrollY, box.width, box.height],
        marks: picture.querySelectorAll(".mark").length,
      };
    });
  },

  // Every colour that text has, and the page's own.
  colours() {
    const found = new Set();
    for (const element of document.body.querySelectorAll("*")) {
      const says = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
      if (!says || !element.getClientRects().length) continue;
      const style = getComputedStyle(element);
      found.add(element instanceof SVGElement ? style.fill : style.color);
    }
    return { text: [...found], paper: getComputedStyle(document.body).backgroundColor };
  },

  // Of each box, how many pixels differ between two screenshots of the same size.
  async differing([before, after, boxes]) {
    const [first, second] = await Promise.all([before, after].map(async (png) => {
      const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
      const canvas = new OffscreenCanvas(image.width, image.height);
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      return context;
    }));
    return boxes.map(([x, y, width, height]) => {
      const [one, other] = [first, second].map((context) =>
        new Uint32Array(context.getImageData(x, y, Math.ceil(width), Math.ceil(height)).data.buffer));
      return one.reduce((count, pixel, place) => count + (pixel !== other[place]), 0);
    });
  },
})
