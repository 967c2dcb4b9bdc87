// What somebody who looks at the page would trip over. Every function returns the findings as texts, none if all is well.
window.seen = (() => {
  const visible = element => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
  const excerpt = element => `${element.tagName.toLowerCase()} "${element.textContent.trim().replace(/\s+/g, ' ').slice(0, 50)}"`;

  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  // [red, green, blue, alpha], each 0 to 1, of any CSS colour.
  const channels = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map(value => value / 255);
  };
  const over = (top, below) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * below[i]).concat(1);
  // https://www.w3.org/TR/WCAG22/#dfn-relative-luminance
  const luminance = colour => {
    const [red, green, blue] = colour.map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (first, second) => {
    const [dark, light] = [luminance(first), luminance(second)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };

  const paper = element => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(channels(getComputedStyle(at).backgroundColor));
    return layers.reduceRight((below, layer) => over(layer, below), [1, 1, 1, 1]);
  };
  // The shape of a drawing that lies under the middle of a text: the last one drawn before it.
  const underneath = text => {
    const box = text.getBoundingClientRect();
    const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
    const shapes = [...text.ownerSVGElement.querySelectorAll('path, rect')].filter(shape => {
      const its = shape.getBoundingClientRect();
      return text.compareDocumentPosition(shape) & Node.DOCUMENT_POSITION_PRECEDING && !shape.closest('defs, clipPath')
        && its.left <= x && x <= its.right && its.top <= y && y <= its.bottom;
    });
    return shapes.reduce((below, shape) => {
      const { fill, fillOpacity } = getComputedStyle(shape);
      if (fill === 'none') return below;
      const colour = channels(fill);
      return over([...colour.slice(0, 3), colour[3] * fillOpacity], below);
    }, paper(text.ownerSVGElement));
  };

  const tooPale = least => [...document.querySelectorAll('body *')].flatMap(element => {
    const drawn = element.matches('svg text, svg tspan');
    const speaks = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!speaks || !visible(element) || element.matches('title, desc, style, metadata *')) return [];
    const below = drawn ? underneath(element) : paper(element);
    const style = getComputedStyle(element);
    const ratio = contrast(over(channels(drawn ? style.fill : style.color), below), below);
    return ratio < least ? [`${ratio.toFixed(2)} ${excerpt(element)}`] : [];
  });

  // Tables whose right is cut off or that reach beyond the sheet, and cells whose text leaves them or tears a short word.
  const cut = () => [...document.querySelectorAll('table')].filter(visible).flatMap(table => {
    const width = document.documentElement.clientWidth;
    const wide = table.getBoundingClientRect().right > width + 1 ? [`to ${table.getBoundingClientRect().right} of ${width}: ${excerpt(table)}`] : [];
    const cells = [...table.querySelectorAll('th, td')].filter(visible);
    const left = cells.filter(cell => cell.scrollWidth > cell.clientWidth + 1).map(cell => `beyond its cell: ${excerpt(cell)}`);
    return [...wide, ...left, ...cells.flatMap(torn)];
  });
  const torn = cell => {
    const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
      for (const word of walker.currentNode.data.matchAll(/(?<![\w./-])[A-Za-z]{2,14}(?![\w./-])/g)) {
        const range = document.createRange();
        range.setStart(walker.currentNode, word.index);
        range.setEnd(walker.currentNode, word.index + word[0].length);
        if (range.getClientRects().length > 1) found.push(`torn: ${word[0]} in ${excerpt(cell)}`);
      }
    }
    return found;
  };

  const REACHABLE = 'a[href], audio[controls], summary';
  const order = () => [...document.querySelectorAll(REACHABLE)].filter(visible);
  // Which of `order` has the focus, and whether that shows: [-1, false] when it is none of them.
  const focused = () => {
    const element = document.activeElement;
    const { outlineStyle, outlineWidth } = getComputedStyle(element);
    return [order().indexOf(element), outlineStyle !== 'none' && parseFloat(outlineWidth) >= 1];
  };

  // What becomes of a player that has been started, within ten seconds.
  const played = async player => {
    for (let i = 0; i < 200 && !(player.currentTime > 0.1) && !player.error; i++) await new Promise(go => setTimeout(go, 50));
    return { moved: player.currentTime > 0.1, error: player.error && player.error.message, ready: player.readyState };
  };
  return { played, tooPale, cut, torn, focused, reachable: () => order().map(excerpt) };
})();
